from __future__ import annotations

import math

from rlwandb_callbacks.callbacks.metrics.rank_reduction import over_ranks


def test_ranks_count_alike_and_ranges_are_kept() -> None:
    shares = [{"q": 1.0, "q_min": -1.0, "q_max": 2.0}, {"q": 2.0, "q_min": -4.0, "q_max": 1.0}, {"q": 6.0}]
    assert over_ranks(shares) == {"q": 3.0, "q_min": -4.0, "q_max": 2.0}


def test_one_rank_keeps_its_numbers_and_their_order() -> None:
    assert list(over_ranks([{"b": 1.0, "a": 2.0}]).items()) == [("b", 1.0), ("a", 2.0)]
    assert over_ranks([{}, {}]) == {}


def test_a_number_that_is_none_shows() -> None:
    assert math.isnan(over_ranks([{"loss": math.nan}, {"loss": 1.0}])["loss"])
