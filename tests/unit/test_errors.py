from __future__ import annotations

import pytest

from rlwandb_callbacks.errors import ConfigError, EnvError, PolicyError, describe_error, name_and_message, nearest


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("epsiodes", ["seed", "episodes", "num_envs"], " Did you mean 'episodes'?"),
        ("CartPole-v2", ["CartPole-v1", "CartPole-v0", "Acrobot-v1"], " Did you mean 'CartPole-v1'?"),
        ("xyz", ["episodes", "seed"], ""),
        ("xyz", [], ""),
    ],
)
def test_a_similar_name_is_suggested(name: str, known: list[str], expected: str) -> None:
    assert nearest(name, known) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("no display"), "RuntimeError: no display."),
        (OSError("No video mode has been set. \n"), "OSError: No video mode has been set."),
        (ValueError("Really?"), "ValueError: Really?"),
        (KeyError(), "KeyError."),
    ],
)
def test_errors_are_described_in_one_sentence(error: Exception, expected: str) -> None:
    assert describe_error(error) == expected


def test_configuration_errors_are_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(EnvError, ConfigError)
    assert issubclass(PolicyError, ConfigError)


def test_an_error_without_a_message_is_described_by_its_line() -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError
    assert describe_error(caught.value).startswith("KeyError in test_errors.py, line ")
    assert describe_error(caught.value).endswith(": raise KeyError.")


def test_a_long_message_keeps_its_start_and_its_end_and_no_part_of_a_word() -> None:
    message = name_and_message(RuntimeError(f"ffmpeg failed {'log ' * 370}my-password {'more ' * 9_000}no space left"))
    assert message.startswith("RuntimeError: ffmpeg failed log log")
    assert message.endswith("more no space left")
    assert set(message.split()) == {"RuntimeError:", "ffmpeg", "failed", "log", "…", "more", "no", "space", "left"}
    assert len(name_and_message(RuntimeError("y" * 3_000_000))) < 2_100


class SeveralError(Exception):
    """As ExceptionGroup of Python 3.11 is."""

    exceptions = (OSError(28, "No space left on device"), ValueError("two"), KeyError(), ValueError("four"))


def test_the_first_errors_of_a_group_are_told() -> None:
    told = "SeveralError: several; OSError: [Errno 28] No space left on device; ValueError: two; KeyError."
    assert name_and_message(SeveralError("several")) == told
