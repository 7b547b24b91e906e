#!/usr/bin/env bash
# TorchRL 0.14.1: TanhNormal gives a confident policy log-probabilities of its own samples that fall without limit.
#
# Expected: the log-probability of a sample of tanh(N(loc, 0.1)) grows with |loc|, as tanh squeezes the density into an
# ever smaller interval: about +16 at loc = 8 and +24 at loc = 12.
# Seen: samples are clamped to 0.999999 (|x| = 7.25 before tanh), and log_prob inverts the clamped value, which lies many
# standard deviations from loc: -13.8 at loc = 8 and -1114.7 at loc = 12. No warning. An entropy bonus or a SAC
# temperature that uses these numbers moves the wrong way. Up to |loc| = 6 the values are right.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import math

import torch
from torchrl.modules.distributions import TanhNormal

SCALE = 0.1
seen = {}
for loc in (2.0, 6.0, 8.0, 12.0):
    torch.manual_seed(0)
    policy = TanhNormal(torch.tensor([loc]), torch.tensor([SCALE]), low=-1.0, high=1.0)
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * SCALE
    before_tanh = loc + noise
    log_normal = -0.5 * (noise / SCALE) ** 2 - math.log(SCALE * math.sqrt(2 * math.pi))
    log_slope = 2 * (math.log(2) - before_tanh - torch.nn.functional.softplus(-2 * before_tanh))
    expected = (log_normal - log_slope).mean().item()
    samples = policy.sample((1000,))
    measured = policy.log_prob(samples).mean().item()
    seen[loc] = measured, expected
    print(f"loc {loc:4.1f}: mean log_prob of own samples {measured:10.2f}, exact {expected:6.2f}, "
          f"largest sample {samples.max().item():.7f}")

assert all(abs(measured - expected) < 0.5 for loc, (measured, expected) in seen.items() if loc <= 6), seen
assert seen[8.0][0] < -5 and seen[8.0][1] > 14, seen
assert seen[12.0][0] < -1000 and seen[12.0][1] > 20, seen
print("As described: torchrl 0.14.1")
PY
