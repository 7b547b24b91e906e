"""Meetings of ranks in a store: all of them or none, with a limit, and interrupted by SIGTERM."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.lockstep import EpochPlan, Lockstep, Moment
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.callbacks.meetings import Meetings, MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.errors import ConfigError

FAR = 60.0  # seconds; no test reaches it


@pytest.fixture
def store() -> HashStore:
    return HashStore()


def test_ranks_meet_any_number_of_times_and_leave_nothing_in_the_store(store: HashStore) -> None:
    in_step = threading.Barrier(3)

    def attend(index: int) -> list[int]:
        meetings, seen = Meetings(), []
        for step in range(20):
            meetings.meet(store, index, 3, f"at step {step // 2}", max_seconds=FAR)
            seen.append(step)
            in_step.wait(FAR)
        return seen

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(attend, range(3))) == [list(range(20))] * 3
    assert store.num_keys() == 0


def missed(meet: Callable[..., None], *args: Any, **keywords: Any) -> str:
    with pytest.raises(MissingRanksError) as caught:
        meet(*args, **keywords)
    return str(caught.value)


def test_rank_that_waits_in_vain_names_the_missing_ranks_and_those_that_come_later_do_not_wait(
    store: HashStore,
) -> None:
    first, second = Meetings(), Meetings()
    assert "rank 1 has waited 0 s for ranks 0 and 2 at step 6" in missed(
        first.meet, store, 1, 3, "at step 6", max_seconds=0.1
    )
    start = time.monotonic()
    missed(second.meet, store, 0, 3, "at step 6", max_seconds=FAR)
    missed(second.meet, store, 0, 3, "at step 8", max_seconds=FAR)
    assert time.monotonic() - start < FAR / 2


def test_ranks_that_have_missed_each_other_meet_again_at_the_start_of_a_training(store: HashStore) -> None:
    ranks = [Meetings(), Meetings()]
    missed(ranks[0].meet, store, 0, 2, "at step 6", max_seconds=0.1)
    with ThreadPoolExecutor(2) as pool:
        options = {"max_seconds": FAR, "heeds_misses": False}
        starts = [pool.submit(ranks[i].meet, store, i, 2, "at the start", **options) for i in (0, 1)]
        assert [each.result(FAR) for each in starts] == [None, None]
        steps = [pool.submit(ranks[i].meet, store, i, 2, "at step 6", max_seconds=FAR) for i in (0, 1)]
        assert [each.result(FAR) for each in steps] == [None, None]


def test_wait_without_a_limit_ends_soon_after_sigterm(store: HashStore) -> None:
    start = time.monotonic()
    with pytest.raises(MissingRanksError) as caught:
        Meetings().meet(store, 1, 2, "at step 6", max_seconds=None, is_interrupted=lambda: True)
    assert caught.value.is_interrupted
    assert time.monotonic() - start < 30


def test_error_of_another_rank_is_raised_with_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeTrainer:
        world_size, global_rank = 2, 0

    ranks = Ranks(FakeTrainer())
    monkeypatch.setattr(ranks, "gather", lambda mine: [mine, OSError("no license")])
    with pytest.raises(RuntimeError, match=r"^on rank 1: OSError: no license$"):
        ranks.raise_together(None)
    with pytest.raises(ValueError, match=r"^mine$"):
        ranks.raise_together(ValueError("mine"))


def test_exception_on_one_rank_ends_the_wait_of_others_until_the_next_start(store: HashStore) -> None:
    ranks = [Meetings(), Meetings()]
    ranks[1].leave(store)
    assert "other ranks have ended, or no longer wait for rank 0 at step 6" in missed(
        ranks[0].meet, store, 0, 2, "at step 6", max_seconds=FAR
    )
    with ThreadPoolExecutor(2) as pool:
        options = {"max_seconds": FAR, "heeds_misses": False}
        starts = [pool.submit(ranks[i].meet, store, i, 2, "at the start", **options) for i in (0, 1)]
        assert [each.result(FAR) for each in starts] == [None, None]


def test_rank_zero_leaves_a_message_without_waiting_and_nothing_stays_when_all_have_heard_it(store: HashStore) -> None:
    zero, others = Meetings(), [Meetings(), Meetings()]
    zero.send(store, "no disk")
    heard = [other.receive(store, index + 1, 3, "at the start", max_seconds=FAR) for index, other in enumerate(others)]
    assert heard == ["no disk", "no disk"]
    assert store.num_keys() == 0


def test_rank_that_hears_nothing_of_rank_zero_goes_on_after_its_limit(store: HashStore) -> None:
    text = missed(Meetings().receive, store, 1, 2, "when the run is opened", max_seconds=0.1)
    assert text == "rank 1 has waited 0 s for rank 0 when the run is opened, and goes on without its answer."


def test_error_of_rank_zero_is_raised_on_all_ranks_and_rank_zero_does_not_wait(
    store: HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ranks(index: int) -> Ranks:
        return Ranks(SimpleNamespace(world_size=2, global_rank=index), "when the run is opened", max_seconds=FAR)

    monkeypatch.setattr("rlwandb_callbacks.callbacks.ranks.shared_store", lambda: store)
    for of_zero in (ConfigError("the folder cannot be written"), None):
        monkeypatch.setattr("rlwandb_callbacks.callbacks.ranks.PROCESS", Meetings())
        with pytest.raises(ConfigError, match=r"^the folder") if of_zero else nullcontext():
            ranks(0).raise_of_zero(of_zero)
        monkeypatch.setattr("rlwandb_callbacks.callbacks.ranks.PROCESS", Meetings())
        with pytest.raises(ConfigError, match=r"^on rank 0: the folder") if of_zero else nullcontext():
            ranks(1).raise_of_zero(None)


def test_training_goes_on_if_other_ranks_do_not_come_to_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(*_: Any) -> Any:
        raise MissingRanksError("rank 0 has waited 600 s")

    monkeypatch.setattr(Ranks, "gather", gather)
    monkeypatch.setattr(EpochPlan, "of", lambda _: None)
    errors = ErrorPolicy(raises=False, timer=LoggingTimer())
    lockstep = Lockstep(errors)
    trainer = SimpleNamespace(world_size=2, global_rank=0)
    with pytest.warns(UserWarning, match="rank 0 has waited 600 s"):
        lockstep.agree(trainer)
    assert errors.count == 1
    assert not any(lockstep.is_sure(trainer, moment) for moment in Moment)
