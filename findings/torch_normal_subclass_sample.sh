#!/usr/bin/env bash
# torch 2.13.0: a subclass of Normal that overrides rsample() only keeps the parent's values in sample().
#
# Expected: sample() is rsample() without gradients, as in torch.distributions.Distribution: a subclass that overrides
# rsample to return tanh of the parent's gives values in [-1, 1] from both.
# Seen: that holds for subclasses of Laplace and MultivariateNormal, but not of Normal, which draws by its own code in
# sample(): at loc 3, scale 1 all of 1,000 x 2 rsample() values are in [-1, 1], and 97 % of the sample() values are not
# (largest 6.097). Independent(policy, 1) does the same. No warning. A policy that explores by sample() and trains by
# rsample() plays other actions than it learns from. Cauchy, StudentT, Uniform and Gamma take sample() from rsample() as
# well. Overriding sample() too avoids it.
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
from torch.distributions import (
    Cauchy, Distribution, Gamma, Independent, Laplace, MultivariateNormal, Normal, StudentT, Uniform,
)


class Squash:
    def rsample(self, sample_shape=torch.Size()):
        return super().rsample(sample_shape).tanh()


class SquashedNormal(Squash, Normal):
    pass


class SquashedLaplace(Squash, Laplace):
    pass


class SquashedMultivariateNormal(Squash, MultivariateNormal):
    pass


loc, scale = torch.full((2,), 3.0), torch.ones(2)
cases = {
    "SquashedNormal": SquashedNormal(loc, scale),
    "Independent(SquashedNormal)": Independent(SquashedNormal(loc, scale), 1),
    "SquashedLaplace": SquashedLaplace(loc, scale),
    "SquashedMultivariateNormal": SquashedMultivariateNormal(loc, torch.eye(2)),
}
for name, policy in cases.items():
    torch.manual_seed(0)
    largest = {call: getattr(policy, call)((1000,)).abs().max().item() for call in ("rsample", "sample")}
    outside = (policy.sample((1000,)).abs() > 1).float().mean().item()
    print(f"{name:27}: largest rsample() {largest['rsample']:.3f}, largest sample() {largest['sample']:.3f}, "
          f"share of sample() outside [-1, 1] {outside:.3f}")
    assert largest["rsample"] <= 1, largest
    assert (outside > 0.9 and largest["sample"] > 4) if "Normal" in name and "Multi" not in name else outside == 0

assert Normal.sample is not Distribution.sample
assert all(c.sample is Distribution.sample for c in (Laplace, MultivariateNormal, Cauchy, StudentT, Uniform, Gamma))
print("As described: torch", torch.__version__)
PY
