#!/usr/bin/env bash
# TorchRL 0.14.1: TanhNormal.support raises TypeError, and the support of TruncatedNormal is in standardized units.
#
# Expected: `support` is a constraint, as for all distributions of torch: [-1, 1] for both with their default bounds.
# Seen: TanhNormal(...).support raises "TypeError: '_Real' object is not callable" (constraints.real is an instance, and is
# called). TruncatedNormal(0.9, 2, -1, 1).support is the interval [-0.95, 0.05], that of (x - loc) / scale, so that
# support.check is False for most of its own samples. Code that asks a policy for its bounds fails or clips wrongly.
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
from torchrl.modules import TanhNormal, TruncatedNormal

loc, scale = torch.tensor([[0.9]]), torch.tensor([[2.0]])
try:
    seen = repr(TanhNormal(loc, scale).support)
except TypeError as error:
    seen = f"TypeError: {error}"
print("TanhNormal.support:", seen)
assert seen == "TypeError: '_Real' object is not callable", seen

torch.manual_seed(0)
policy = TruncatedNormal(loc, scale, low=-1.0, high=1.0)
samples = policy.sample((1000,))
share = policy.support.check(samples).float().mean().item()
print(f"TruncatedNormal.support: {policy.support.base_constraint}; samples from {samples.min().item():.2f} to "
      f"{samples.max().item():.2f}, of which {share:.0%} are in it")
assert samples.min() > -1.0001 and samples.max() < 1.0001 and share < 0.6, share
print("As described: torchrl 0.14.1")
PY
