from __future__ import annotations

import pytest

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer


def test_an_error_without_a_message_is_reported_with_the_line_that_raised_it() -> None:
    policy = ErrorPolicy(raises=False, timer=LoggingTimer())
    with (
        pytest.warns(
            UserWarning, match=r"goes on: AssertionError in test_error_policy.py, line \d+: raise AssertionError"
        ),
        policy.guard("The evaluation"),
    ):
        raise AssertionError
    assert policy.count == 1
