from __future__ import annotations

import pickle
from functools import partial

import pytest

from rlwandb_callbacks.core.values import Scalar, Value
from rlwandb_callbacks.evaluation.report import Report, Together


def gives(key: str) -> dict[str, Value]:
    return {key: Scalar(1.0)}


def fails(text: str) -> dict[str, Value]:
    raise ValueError(text)


@pytest.mark.parametrize("error", [None, RuntimeError("no codec")])
def test_work_that_is_done_together_keeps_what_each_gave_and_the_first_error(error: Exception | None) -> None:
    first = partial(Report, gives("eval/a"), error)
    others = [partial(fails, "no map"), partial(gives, "dataset/b")]
    report = pickle.loads(pickle.dumps(Together(first, others)))()
    assert report.values.keys() == {"eval/a", "dataset/b"}
    assert str(report.error) == ("no map" if error is None else "no codec")


def test_work_that_is_done_alone_stays_as_it_is() -> None:
    assert Together(partial(Report, gives("eval/a")), [])() == Report(gives("eval/a"))
