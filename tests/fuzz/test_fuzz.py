"""Random data files, settings and outputs of policies: a result or the package's own error, in bounded time and memory.

500 cases; FUZZ_CASES sets another number (``make fuzz``: 20,000).
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.config.from_mapping import as_config
from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.errors import ConfigError, PolicyError
from rlwandb_callbacks.policies.output_reader import OutputReader

CASES = int(os.environ.get("FUZZ_CASES", "500"))
SHARE = CASES * 3 // 10  # of settings, and of outputs; the rest are data files
PER_PROCESS = 500
# Cases do not depend on earlier runs, and pauses of a busy machine are no errors.
fuzz = settings(
    max_examples=SHARE, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.timeout(max(300, CASES))
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_damaged_data_files_give_a_result_or_an_error_of_the_package(tmp_path: Path) -> None:
    program = Path(__file__).with_name("data_files.py")
    count = CASES - 2 * SHARE
    for first in range(0, count, PER_PROCESS):
        cases = min(PER_PROCESS, count - first)
        command = [sys.executable, str(program), str(tmp_path), str(first), str(cases)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 + 2 * cases)
        lines = [line.split(maxsplit=4) for line in done.stdout.splitlines()]
        assert done.returncode == 0, f"ended with {done.returncode} in {done.stdout.splitlines()[-1:]}: {done.stderr}"
        assert len(lines) == cases
        assert [line for line in lines if line[4] not in ("result", "error")] == []
        assert {line[4] for line in lines} == {"result", "error"}
        assert max(float(line[2]) for line in lines) < 20
        assert max(int(line[3]) for line in lines) < 1024


def setting_names(kind: Any) -> list[str]:
    return [item.name for item in fields(kind)]


SECTIONS = ("evaluation", "dataset", "metrics", "gradients", "videos", "plasticity", "alerts", "run")
NAMES = sorted({name for section in SECTIONS for name in setting_names(type(getattr(WandbRLConfig(), section)))})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4), st.just(object())
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4), st.integers()), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=6,
)
SECTION_VALUES = st.one_of(VALUES, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
CONFIGS = st.dictionaries(
    st.one_of(st.sampled_from(setting_names(WandbRLConfig)), st.text(max_size=6)), SECTION_VALUES, max_size=4
)


@fuzz
@given(CONFIGS)
def test_settings_give_a_config_or_an_error_of_the_package(values: dict[str, Any]) -> None:
    try:
        config = as_config(values)
    except ConfigError:
        return
    assert isinstance(config, WandbRLConfig)


NUMBERS = st.one_of(st.integers(-3, 5), st.floats(width=32), st.booleans(), st.just(1e38), st.just(2**70))
SHAPES = st.lists(st.integers(0, 4), max_size=4)
DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16, np.complex64])


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape, dtype = draw(SHAPES), draw(DTYPES)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    special = draw(st.sampled_from([None, None, np.nan, np.inf, -np.inf, 0.0, 200.0]))
    with np.errstate(invalid="ignore"):
        array = np.asarray(rng.normal(size=shape) if special is None else np.full(shape, special)).astype(dtype)
    return torch.as_tensor(array) if draw(st.booleans()) else array


OUTPUT_KEYS = st.sampled_from(
    ["q_values", "action_value", "logits", "probs", "loc", "scale", "action", "value", "state", "x"]
)
LEAVES = st.one_of(arrays(), NUMBERS, st.none(), st.text(max_size=3))
OUTPUTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(OUTPUT_KEYS, inner, max_size=3)
    ),
    max_leaves=5,
)
SPACES = st.sampled_from(
    [
        spaces.Discrete(3),
        spaces.Discrete(2, start=-1),
        spaces.Box(-2.0, 2.0, (2,), np.float32),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(2),
        spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1.0, 1.0, (1,), np.float32)),
    ]
)


@fuzz
@given(OUTPUTS, SPACES, st.sampled_from([True, False, "q_value", "action_probability"]), st.integers(1, 3))
def test_outputs_of_policies_give_a_step_or_an_error_of_the_package(
    output: Any, space: Any, action_logger: bool | str, batch_size: int
) -> None:
    reader = OutputReader(space, action_logger, "unknown", deterministic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            step = reader.read(output, batch_size)
        except PolicyError:
            return
    assert isinstance(step, PolicyStep)
    assert len(step.actions) == batch_size
