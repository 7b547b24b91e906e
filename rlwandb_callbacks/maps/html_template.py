"""The page of an interactive map: markup, style and script, without any library; the data are put in its place."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>__TITLE__</title>
<style>
  html, body { margin: 0; height: 100%; font: 14px/1.35 system-ui, -apple-system, "Segoe UI", sans-serif;
    color: #222831; background: #fff; }
  body { display: flex; flex-direction: column; }
  header { padding: 10px 14px 6px; display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: baseline; }
  h1 { font-size: 17px; margin: 0; }
  #about { color: #5c6470; font-size: 13px; flex: 1 1 auto; }
  #warnings { margin: 0; padding: 0 14px 4px; list-style: none; color: #b45309; font-size: 13px; flex: none;
    max-height: 30%; overflow-y: auto; }
  #warnings:empty { display: none; }
  label { color: #5c6470; font-size: 13px; }
  select, button { font: inherit; font-size: 13px; padding: 2px 6px; border: 1px solid #c3c7ce; border-radius: 5px;
    background: #fff; color: #222831; }
  #main { flex: 1 1 auto; display: flex; min-height: 200px; }
  #stage { position: relative; flex: 1 1 auto; border: 1px solid #e2e5ea; border-radius: 6px; margin: 4px 0 10px 14px;
    overflow: hidden; cursor: crosshair; touch-action: none; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
  #legend { flex: 0 0 170px; padding: 6px 12px; overflow-y: auto; font-size: 13px; }
  #legend .name { display: flex; align-items: center; gap: 7px; padding: 2px 0; cursor: pointer; user-select: none; }
  #legend .name.off { opacity: 0.3; }
  #legend .dot { width: 11px; height: 11px; border-radius: 50%; flex: none; }
  #legend .bar { width: 18px; height: 220px; border-radius: 3px; margin-right: 8px; }
  #tip { position: absolute; display: none; pointer-events: none; background: rgba(34, 40, 49, 0.94); color: #fff;
    border-radius: 6px; padding: 7px 10px; font-size: 12.5px; max-width: 300px; z-index: 2; white-space: nowrap; }
  #tip td { padding: 0 8px 0 0; } #tip td + td { text-align: right; font-variant-numeric: tabular-nums; padding: 0; }
  #hint { color: #8a919c; font-size: 12px; }
</style>
</head>
<body>
<header>
  <h1 id="title"></h1><span id="about"></span>
  <span><label for="layout">Map</label> <select id="layout"></select></span>
  <span><label for="color">Color</label> <select id="color"></select></span>
  <button id="reset" type="button">Reset view</button><span id="hint">wheel: zoom · drag: move · hover: values</span>
</header>
<ul id="warnings"></ul>
<div id="main">
  <div id="stage"><canvas id="points"></canvas><canvas id="mark"></canvas><div id="tip"></div></div>
  <div id="legend"></div>
</div>
<script>
"use strict";
const data = __DATA__;
const $ = (id) => document.getElementById(id);
const bytes = Uint8Array.from(atob(data.bytes), (c) => c.charCodeAt(0));
const view = (Kind, at, count) => new Kind(bytes.buffer.slice(at, at + count * Kind.BYTES_PER_ELEMENT));
const n = data.count;
const layouts = data.layouts.map((l) => ({ name: l.name, xy: view(Uint16Array, l.at, 2 * n) }));
const columns = data.columns.map((c) => ({ name: c.name, values: view(Float32Array, c.at, n), names: c.names }));
const colorings = data.colorings.map((c) => ({ ...c, index: view(Uint8Array, c.at, n), hidden: new Set() }));
const order = Uint32Array.from({ length: n }, (_, i) => i);
for (let i = n - 1, seed = 1; i > 0; i--) {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  const j = seed % (i + 1);
  [order[i], order[j]] = [order[j], order[i]];
}
let coloring = colorings.find((c) => !c.note) || colorings[0];
let layout = layouts[0], zoom = 1, left = 0, top_ = 0, hovered = -1;
const stage = $("stage"), canvas = $("points"), mark = $("mark"), tip = $("tip");
const pen = canvas.getContext("2d"), over = mark.getContext("2d");
$("title").textContent = data.title;
$("about").textContent = data.about;
data.warnings.forEach((text) => $("warnings").append(element("li", "", text)));
layouts.forEach((l, i) => $("layout").add(new Option(l.name, i)));
colorings.forEach((c, i) => $("color").add(new Option(c.label, i, false, c === coloring)));

const side = () => Math.max(1, Math.min(stage.clientWidth, stage.clientHeight) - 24);
const px = (i) => (stage.clientWidth - side()) / 2 + (layout.xy[2 * i] / 65535 * zoom + left) * side();
const py = (i) => (stage.clientHeight - side()) / 2 + ((1 - layout.xy[2 * i + 1] / 65535) * zoom + top_) * side();
const radius = () => Math.min(7, Math.max(1.3, Math.sqrt(26000 / n) / 2) * Math.sqrt(zoom));
const shown = (i) => !coloring.hidden.has(coloring.index[i]);

function fit(c) {
  const ratio = window.devicePixelRatio || 1;
  c.width = Math.round(stage.clientWidth * ratio);
  c.height = Math.round(stage.clientHeight * ratio);
  c.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

function draw() {
  fit(canvas);
  fit(mark);
  pen.globalAlpha = 0.85;
  const r = radius(), width = stage.clientWidth, height = stage.clientHeight;
  for (const i of order) {
    if (!shown(i)) continue;
    const x = px(i), y = py(i);
    if (x < -r || y < -r || x > width + r || y > height + r) continue;
    pen.fillStyle = coloring.colors[coloring.index[i]] || "#c8c8c8";
    pen.beginPath();
    pen.arc(x, y, r, 0, 6.3);
    pen.fill();
  }
  highlight();
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function highlight() {
  over.clearRect(0, 0, stage.clientWidth, stage.clientHeight);
  if (hovered < 0) return;
  over.lineWidth = 2;
  over.strokeStyle = "#222831";
  over.beginPath();
  over.arc(px(hovered), py(hovered), radius() + 3, 0, 6.3);
  over.stroke();
}

function number(value) {
  if (!Number.isFinite(value)) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}

function hover(x, y) {
  let nearest = 15 * 15;
  hovered = -1;
  for (let i = 0; i < n; i++) {
    const distance = (px(i) - x) ** 2 + (py(i) - y) ** 2;
    if (distance < nearest && shown(i)) { nearest = distance; hovered = i; }
  }
  highlight();
  tip.style.display = hovered < 0 ? "none" : "block";
  if (hovered < 0) return;
  const table = document.createElement("table");
  for (const column of columns) {
    const value = column.values[hovered], row = table.insertRow();
    row.insertCell().textContent = column.name;
    row.insertCell().textContent = (column.names && column.names[String(value)]) || number(value);
  }
  tip.replaceChildren(table);
  const fromLeft = px(hovered) + 14, fromTop = py(hovered) + 14;
  tip.style.left = Math.max(0, Math.min(fromLeft, stage.clientWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = Math.max(0, Math.min(fromTop, stage.clientHeight - tip.offsetHeight - 4)) + "px";
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function legend() {
  const box = $("legend");
  box.replaceChildren(element("b", "", coloring.label));
  if (coloring.note) box.append(element("div", "", coloring.note));
  if (coloring.categories) {
    coloring.categories.forEach((name, k) => {
      const line = element("div", "name"), dot = element("span", "dot");
      dot.style.background = coloring.colors[k];
      line.append(dot, element("span", "", name));
      line.classList.toggle("off", coloring.hidden.has(k));
      line.onclick = () => {
        if (!coloring.hidden.delete(k)) coloring.hidden.add(k);
        legend();
        redraw();
      };
      box.append(line);
    });
    return;
  }
  const scale = element("div", "name"), bar = element("div", "bar"), ends = element("div", "");
  const few = coloring.colors.filter((_, k) => k % 8 === 0).reverse();
  bar.style.background = "linear-gradient(" + few.join(",") + ")";
  ends.style.cssText = "height:220px;display:flex;flex-direction:column;justify-content:space-between";
  const ticks = [1, 0.75, 0.5, 0.25, 0].map((share) => coloring.low + share * (coloring.high - coloring.low));
  ends.append(...ticks.map((value) => element("span", "", number(value))));
  scale.append(bar, ends);
  box.append(scale);
}

function zoomAt(x, y, factor) {
  const to = Math.min(200, Math.max(0.5, zoom * factor)), by = to / zoom, s = side();
  const u = (x - (stage.clientWidth - s) / 2) / s, v = (y - (stage.clientHeight - s) / 2) / s;
  left = u - (u - left) * by;
  top_ = v - (v - top_) * by;
  zoom = to;
  redraw();
}

const place = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(...place(event), Math.exp(-event.deltaY * 0.0016));
}, { passive: false });
let held = null;
stage.addEventListener("pointerdown", (event) => { held = place(event); stage.setPointerCapture(event.pointerId); });
stage.addEventListener("pointerup", () => { held = null; });
stage.addEventListener("pointermove", (event) => {
  const [x, y] = place(event);
  if (held === null) { hover(x, y); return; }
  left += (x - held[0]) / side();
  top_ += (y - held[1]) / side();
  held = [x, y];
  tip.style.display = "none";
  redraw();
});
stage.addEventListener("pointerleave", () => { hovered = -1; tip.style.display = "none"; highlight(); });
function reset() { zoom = 1; left = 0; top_ = 0; redraw(); }
stage.addEventListener("dblclick", reset);
$("reset").onclick = reset;
$("layout").onchange = (event) => { layout = layouts[event.target.value]; hovered = -1; redraw(); };
$("color").onchange = (event) => { coloring = colorings[event.target.value]; legend(); redraw(); };
new ResizeObserver(redraw).observe(stage);
legend();
draw();
</script>
</body>
</html>
"""
