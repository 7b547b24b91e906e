"""Jobs that run in the training process leave its random states alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.core.values import Scalar
from rlwandb_callbacks.evaluation.time_limited_job import TimeLimitedJob
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Job


class RunsAtOnce(Executor):
    """Executor that runs work in the thread that submits it."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*args, **kwargs))
        return future


def seeds_generators() -> Mapping[str, Scalar]:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002  # as environments do
    torch.manual_seed(5)
    return {"a": Scalar(float(torch.rand(1)))}


def cannot_be_pickled() -> Job:
    generator = (each for each in ())
    return lambda: (list(generator), seeds_generators())[1]


@pytest.mark.parametrize(
    ("executor", "job"),
    [("inline", seeds_generators), ("process", cannot_be_pickled()), (RunsAtOnce(), seeds_generators)],
    ids=["inline", "fallback", "executor of the user"],
)
def test_jobs_in_the_training_thread_keep_its_random_states(executor: Any, job: Job) -> None:
    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]  # noqa: NPY002

    queue, results = JobQueue(executor), []
    before = states()
    queue.submit([TimeLimitedJob(job, 60)], results.append)
    queue.finish(30)
    assert states() == before
    assert "a" in results[0].values


def test_jobs_in_a_worker_process_are_run_as_they_are() -> None:
    queue, results = JobQueue("process"), []
    queue.submit([TimeLimitedJob(seeds_generators, 60)], results.append)
    queue.finish(60)
    assert results[0].error is None
