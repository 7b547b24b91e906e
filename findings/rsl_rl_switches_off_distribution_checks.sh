#!/usr/bin/env bash
# rsl-rl-lib 5.5.1: a policy with a Gaussian or Beta distribution switches off the argument checks of all distributions
# of torch in the process.
#
# Expected: the setting of a library's own distributions stays with them (`Normal(mean, std, validate_args=False)`).
# Seen: GaussianDistribution(1) calls Normal.set_default_validate_args(False), a static method of
# torch.distributions.Distribution that sets the default of every class. Afterwards Normal(0., -1.) and
# Categorical(logits=nan) of other code raise no ValueError; they give NaN.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 tensordict==0.14.3 numpy==2.4.6 packaging GitPython==3.2.1 tensorboard==2.21.0
"$folder/venv/bin/pip" install --quiet --no-deps rsl-rl-lib==5.5.1
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.distributions import Categorical
from rsl_rl.modules.distribution import GaussianDistribution


def raises() -> bool:
    try:
        Categorical(logits=torch.tensor([float("nan"), 0.0]))
    except ValueError:
        return True
    return False


before = raises()
GaussianDistribution(1)
after = raises()
print("Categorical(logits=nan) raises ValueError before:", before, "after:", after)
assert before and not after, (before, after)
print("As described: rsl-rl-lib 5.5.1")
PY
