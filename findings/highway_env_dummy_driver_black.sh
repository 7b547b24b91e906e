#!/usr/bin/env bash
# highway-env 1.12.1: with SDL_VIDEODRIVER=dummy, usual without a display, pictures and observations are black.
#
# Expected: render_mode="rgb_array" draws to a surface in memory, which needs no display and works with that driver.
# Seen: with SDL_VIDEODRIVER=dummy each frame (150, 600, 3) is 0 throughout, and so is the observation of type
# GrayscaleObservation (4, 128, 64): a policy that learns from pictures sees nothing. No error, no warning. A circle
# that the same process draws to a surface of its own is there. With the variable unset, "offscreen" and
# "offscreen,dummy" (pygame-ce 2.5.8 uses the offscreen driver in all three) the frame has 7 colors and the observation
# 7 gray values. The environment compares the variable's text with "dummy" and then stops drawing.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet highway-env==1.12.1 gymnasium==1.4.0 pygame-ce==2.5.8 numpy==2.4.6
cd "$folder"
unset DISPLAY WAYLAND_DISPLAY SDL_VIDEODRIVER
export XDG_RUNTIME_DIR="$folder" PYGAME_HIDE_SUPPORT_PROMPT=1
cat >measure.py <<'PY'
import sys
import warnings

import gymnasium
import highway_env
import numpy as np
import pygame

warnings.simplefilter("error")


def colors(picture):
    return len(np.unique(picture.reshape(-1, 3), axis=0))


gymnasium.register_envs(highway_env)
gray = {"type": "GrayscaleObservation", "observation_shape": (128, 64), "stack_size": 4,
        "weights": [0.2989, 0.5870, 0.1140], "scaling": 1.75}
env = gymnasium.make("highway-v0", render_mode="rgb_array", config={"observation": gray})
env.reset(seed=0)
for _ in range(4):
    observation, *_ = env.step(1)
frame = env.render()
own = pygame.Surface((20, 20))
pygame.draw.circle(own, (255, 0, 0), (10, 10), 5)
seen = colors(frame), int(frame.max()), len(np.unique(observation)), int(observation.max())
print(f"driver {pygame.display.get_driver()}: frame {frame.shape} of {seen[0]} colors, largest value {seen[1]}; "
      f"observation {observation.shape} of {seen[2]} values, largest {seen[3]}; "
      f"own surface of {colors(pygame.surfarray.array3d(own))} colors")
assert colors(pygame.surfarray.array3d(own)) == 2
black = seen == (1, 0, 1, 0)
drawn = seen[0] > 4 and seen[1] > 200 and seen[2] > 4 and seen[3] > 50
sys.exit(0 if (black if sys.argv[1] == "dummy" else drawn) else 1)
PY
failed=0
for driver in unset dummy offscreen offscreen,dummy; do
    if [ "$driver" = unset ]; then setting=(); else setting=("SDL_VIDEODRIVER=$driver"); fi
    echo "SDL_VIDEODRIVER $driver:"
    env "${setting[@]}" "$folder/venv/bin/python" measure.py "$driver" || failed=1
done
[ "$failed" -eq 0 ] && echo "As described: highway-env 1.12.1" || { echo "the behavior has changed"; exit 1; }
