#!/usr/bin/env bash
# torch 2.13.0: Kumaraswamy.mode is NaN for all parameters that have a mode, and Weibull.mode is positive for some
# concentrations at which the density only falls.
#
# Expected: the mode of Kumaraswamy(a, b) with a, b > 1 is ((a - 1) / (a * b - 1)) ** (1 / a): 0.447 for (2, 3), where
# log_prob is largest on a grid. The density of Weibull(1, 0.5) falls from infinity at 0, so that its mode is 0 (or none).
# Seen: Kumaraswamy(2, 3).mode is NaN (log1p(-b) with b > 1). Weibull(1, 0.5).mode is 1.0, as ((k - 1) / k) ** (1 / k) is
# (-1) ** 2; for k = 0.7 it is NaN. No warning. A policy that acts by the mode plays NaN, or an action that is not likely.
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
from torch.distributions import Kumaraswamy, Weibull

grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)[1:-1]
for a, b in ((2.0, 3.0), (1.5, 1.5), (5.0, 2.0)):
    policy = Kumaraswamy(torch.tensor(a, dtype=torch.float64)[None], torch.tensor(b, dtype=torch.float64)[None])
    highest = grid[policy.log_prob(grid).argmax()].item()
    formula = ((a - 1) / (a * b - 1)) ** (1 / a)
    print(f"Kumaraswamy({a}, {b}): mode {policy.mode.item()}, highest density at {highest:.4f}, formula {formula:.4f}")
    assert policy.mode.isnan().all() and abs(highest - formula) < 1e-4
for k, positive in ((0.5, True), (0.7, False), (0.25, True)):
    policy = Weibull(torch.ones(1, dtype=torch.float64), torch.tensor([k], dtype=torch.float64))
    densities = policy.log_prob(torch.linspace(0.01, 20, 1000, dtype=torch.float64))
    falls = bool((densities.diff() < 0).all())
    print(f"Weibull(1, {k}): mode {policy.mode.item()}, density falls everywhere: {falls}")
    assert falls and bool((policy.mode > 0.5).all()) is positive
print("As described: torch", torch.__version__)
PY
