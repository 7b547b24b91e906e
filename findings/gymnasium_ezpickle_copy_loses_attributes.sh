#!/usr/bin/env bash
# gymnasium 1.4.0: copy.deepcopy of an environment that inherits from EzPickle loses the attributes that were set in it.
#
# Expected: a deep copy has the values of the original.
# Seen: EzPickle pickles and copies only the arguments of the first call of __init__, and makes another object with them.
# LunarLander with wind_power set to 3.5 and gravity to -4.0 copies as 15.0 and -10.0. No
# warning. Copies of environments with changed attributes must be given these again.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 box2d==2.3.10 pygame==2.6.1 numpy==2.4.6
cd "$folder"
cat >copy_env.py <<'PY'
import copy

from gymnasium.envs.box2d.lunar_lander import LunarLander

env = LunarLander()
env.wind_power, env.gravity = 3.5, -4.0
copied = copy.deepcopy(env)
print(copied.wind_power, copied.gravity)
assert (copied.wind_power, copied.gravity) == (15.0, -10.0)
PY
"$folder/venv/bin/python" copy_env.py
