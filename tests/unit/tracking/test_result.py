from __future__ import annotations

import pickle
from functools import partial

from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.tracking.result import Result, run_all


def return_scalar(key: str, number: float = 1.0) -> dict[str, Value]:
    return {key: Scalar(number)}


def raise_error(text: str) -> dict[str, Value]:
    raise ValueError(text)


def test_run_all_returns_all_values_and_the_first_error() -> None:
    jobs = [
        partial(return_scalar, "eval/a"),
        partial(raise_error, "first"),
        partial(raise_error, "second"),
        partial(return_scalar, "dataset/b"),
    ]
    result = pickle.loads(pickle.dumps(run_all(pickle.loads(pickle.dumps(jobs)))))
    assert result.values.keys() == {"eval/a", "dataset/b"}
    assert str(result.error) == "first"


def test_run_all_without_jobs_returns_an_empty_result() -> None:
    assert run_all([]) == Result({}, None)


def test_run_all_keeps_the_last_value_of_a_key() -> None:
    assert run_all(
        [partial(return_scalar, "eval/a", 1.0), partial(return_scalar, "eval/a", 2.0)]
    ).values == return_scalar("eval/a", 2.0)
