#!/usr/bin/env bash
# torch 2.13.0: ReLU(inplace=True) after nn.Linear on sequences needs more memory in the backward pass, not less.
#
# Expected: ReLU(inplace=True) after a Linear saves memory, and its node follows that of the layer in the graph, as it
# does for inputs of shape [B, D], and for [B, T, D] if the layer has no bias.
# Seen: with a bias and inputs of shape [B, T, D] the layer's output is a view. The in-place function makes the graph
# AsStridedBackward0 <- CopySlices <- AddmmBackward0: the grad_fn that a forward hook saw on the layer's output
# (ViewBackward0) is not part of it, no node of ReLU can be found, and the backward pass allocates 2.5 times the bytes that
# it does with inplace=False (1.0 times in the two other cases). Tools that look for the output of a layer in the graph
# of what was computed from it lose the layer. Results are the same.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn


def nodes(tensor):
    found, waiting = [], [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.append(node)
            waiting += [following for following, _ in node.next_functions]
    return found


def allocated(layer, batch, inplace):
    """Returns the bytes that operators allocate in the backward pass."""
    output = nn.ReLU(inplace=inplace)(layer(batch))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        output.backward(torch.ones_like(output))
    return sum(max(event.self_cpu_memory_usage, 0) for event in profiler.events())


torch.manual_seed(0)
for name, batch, bias in (
    ("[B, D], bias", torch.randn(4096, 64), True),
    ("[B, T, D], no bias", torch.randn(64, 64, 64), False),
    ("[B, T, D], bias", torch.randn(64, 64, 64), True),
):
    layer, seen = nn.Linear(64, 256, bias=bias), []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.grad_fn))
    output = nn.ReLU(inplace=True)(layer(batch))
    handle.remove()
    graph = nodes(output)
    names, in_graph = [node.name() for node in graph][:3], seen[0] in graph
    copies = allocated(layer, batch, True) / allocated(layer, batch, False)
    print(f"{name:19}: {names}, node of the layer in the graph: {in_graph}, allocated in backward: {copies:.2f} times")
    is_lost = name == "[B, T, D], bias"
    assert ("ReluBackward0" in names) is not is_lost, names
    assert ("torch::autograd::CopySlices" in names) is is_lost, names
    assert in_graph is not is_lost
    assert copies > 1.5 if is_lost else 0.9 < copies < 1.1, copies
print("As described: torch", torch.__version__)
PY
