#!/usr/bin/env bash
# pettingzoo 1.27.0: pistonball_v6 without a render mode, its default, gives the same observations at every step.
#
# Expected: the observation is a picture of the pistons and the ball; render_mode only decides what render() does.
# Seen: with render_mode=None nothing is drawn after the reset. Over 40 steps of random actions all 20 pistons'
# observations and state() stay as they were at the reset, without the ball: 1 distinct picture of the state, of 32
# colors, while the rewards take 17 values. With render_mode="rgb_array", and without one call of render(), the same
# seed and actions give 41 distinct pictures of 79 colors, all 20 pistons' observations change, and the rewards are the
# same. No error, no warning: a policy trained with the default sees a constant.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pettingzoo==1.27.0 pymunk==7.3.1 pygame-ce==2.5.8 gymnasium==1.4.0 numpy==2.4.6
cd "$folder"
SDL_VIDEODRIVER=dummy PYGAME_HIDE_SUPPORT_PROMPT=1 "$folder/venv/bin/python" - <<'PY'
import numpy as np
from pettingzoo.butterfly import pistonball_v6

STEPS = 40


def play(**arguments):
    env = pistonball_v6.parallel_env(continuous=False, **arguments)
    observations, _ = env.reset(seed=0)
    names = list(env.agents)
    generator = np.random.default_rng(0)
    states, views, rewards = [env.state().copy()], [observations], []
    for _ in range(STEPS):
        actions = {a: int(generator.integers(3)) for a in names}
        observations, reward, terminated, truncated, _ = env.step(actions)
        assert not any(terminated.values()) and not any(truncated.values())
        states.append(env.state().copy())
        views.append({a: o.copy() for a, o in observations.items()})
        rewards.append(reward[names[0]])
    pictures = len({state.tobytes() for state in states})
    moving = sum(len({view[a].tobytes() for view in views}) > 1 for a in names)
    colors = len(np.unique(states[-1].reshape(-1, 3), axis=0))
    env.close()
    print(f"{arguments or 'default'}: {pictures} distinct states in {STEPS + 1}, {colors} colors in the last; "
          f"observations that ever change: {moving} of {len(names)} pistons; {len(set(rewards))} distinct rewards")
    return pictures, moving, colors, rewards


default = play()
none = play(render_mode=None)
drawn = play(render_mode="rgb_array")
assert default == none and default[:2] == (1, 0), default[:3]
assert drawn[0] > STEPS // 2 and drawn[1] > 10 and drawn[2] > default[2], drawn[:3]
assert default[3] == drawn[3] and len(set(drawn[3])) > 10
print("As described: pettingzoo 1.27.0")
PY
