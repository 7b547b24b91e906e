#!/usr/bin/env bash
# jsonargparse 4.53.0: an override on the command line of a field "Section | dict[str, Any]" drops what the file holds.
#
# The file gives the field as a mapping of names, and the command line adds one key: --evaluation.episodes=3.
# Expected: the mapping of the file with episodes added, as for a field dict[str, Any]; or an error.
# Seen: the value becomes Section(env=None, episodes=3): the entries near and far of the file are gone, without an error
# or a warning. With the order "dict[str, Any] | Section" they stay.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jsonargparse[signatures]==4.53.0" PyYAML
cd "$folder"
cat >config.yaml <<'Y'
evaluation:
  near: {env: Near-v0}
  far: {env: Far-v0}
Y
cat >measure.py <<'PY'
from dataclasses import dataclass, field
from typing import Any, Union

import jsonargparse


@dataclass
class Section:
    env: Union[str, None] = None
    episodes: int = 8


def parsed(kind, *arguments):
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--evaluation", type=kind)
    value = parser.parse_args(["--config=config.yaml", *arguments]).evaluation
    return value.as_dict() if hasattr(value, "as_dict") else dict(value)


print("jsonargparse", jsonargparse.__version__)
both = Union[Section, dict[str, Any]]
print("file alone:                     ", parsed(both))
dropped = parsed(both, "--evaluation.episodes=3")
print("with an override:               ", dropped)
kept = parsed(Union[dict[str, Any], Section], "--evaluation.episodes=3")
print("with an override, dict is first:", kept)
assert "near" not in str(dropped), dropped
assert {"near", "far", "episodes"} <= kept.keys(), kept
PY
"$folder/venv/bin/python" measure.py
