from __future__ import annotations

import pickle
from functools import partial

from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.tracking.result import Result, run_all


def returns(key: str, number: float = 1.0) -> dict[str, Value]:
    return {key: Scalar(number)}


def fails(text: str) -> dict[str, Value]:
    raise ValueError(text)


def test_jobs_keep_the_values_of_each_and_the_first_error() -> None:
    jobs = [
        partial(returns, "eval/a"),
        partial(fails, "first"),
        partial(fails, "second"),
        partial(returns, "dataset/b"),
    ]
    result = pickle.loads(pickle.dumps(run_all(pickle.loads(pickle.dumps(jobs)))))
    assert result.values.keys() == {"eval/a", "dataset/b"}
    assert str(result.error) == "first"


def test_no_jobs_have_an_empty_result() -> None:
    assert run_all([]) == Result({}, None)


def test_of_one_key_the_later_value_is_kept() -> None:
    assert run_all([partial(returns, "eval/a", 1.0), partial(returns, "eval/a", 2.0)]).values == returns("eval/a", 2.0)
