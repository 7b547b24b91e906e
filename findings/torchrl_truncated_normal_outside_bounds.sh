#!/usr/bin/env bash
# TorchRL 0.14.1: the deterministic action of a TruncatedNormal may lie outside of its own bounds.
#
# Expected: the mean of N(loc, 1) truncated to [-1, 1] lies in [-1, 1]; for loc = 20 it is 0.948, and the density within
# the bounds has an entropy of -1.95 nats (numerical integration).
# Seen: up to loc = 4 the mean is right to 0.01. At loc = 8 `mean` and `deterministic_sample` are 8.0, at loc = 20 20.0: the
# probability of the interval is clamped to 1e-6 before the division. entropy() is -12.4 at both. Samples stay within the
# bounds: all are at 1.0. No warning. An actor that plays deterministic_sample hands 20.0 to an environment whose actions
# end at 1.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torchrl.modules import TruncatedNormal

grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
seen = {}
for loc in (0.9, 4.0, 8.0, 20.0):
    torch.manual_seed(0)
    policy = TruncatedNormal(torch.tensor([[loc]]), torch.ones(1, 1), low=-1.0, high=1.0)
    log_density = -0.5 * (grid - loc) ** 2
    log_density = log_density - torch.trapezoid((log_density - log_density.max()).exp(), grid).log() - log_density.max()
    mean = torch.trapezoid(log_density.exp() * grid, grid).item()
    entropy = -torch.trapezoid(log_density.exp() * log_density, grid).item()
    samples = policy.sample((1000,))
    seen[loc] = policy.deterministic_sample.item(), mean, policy.entropy().item(), entropy
    print(f"loc {loc:4.1f}: deterministic_sample {seen[loc][0]:6.3f}, true mean {mean:.3f}, entropy() {seen[loc][2]:7.3f}, "
          f"true {entropy:.3f}, samples from {samples.min().item():.3f} to {samples.max().item():.3f}")
assert all(abs(found - mean) < 0.01 for loc, (found, mean, _, _) in seen.items() if loc <= 4), seen
assert seen[8.0][0] > 7 and seen[20.0][0] > 19 and seen[20.0][1] < 1, seen
assert seen[20.0][2] < -10 and -2.1 < seen[20.0][3] < -1.8, seen
print("As described: torchrl 0.14.1")
PY
