"""Printing to a pipe whose reader has gone, or to a stream that was closed."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any

import pytest

from rlwandb_callbacks.core.output import stream_of_progress, unfailing_output


class ClosedTerminal(io.StringIO):
    """Stream that fails as that of a closed terminal does."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


class BrokenPipe(io.TextIOBase):
    """Stream to a pipe whose reader has gone."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        os.close(reader)

    def write(self, text: str) -> int:
        return os.write(self.writer, text.encode())

    def __del__(self) -> None:
        os.close(self.writer)


def closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [BrokenPipe, closed, ClosedTerminal])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_nothing_that_is_printed_fails(make: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import tqdm

    stream = make()
    monkeypatch.setattr(sys, name, stream)
    with pytest.raises((OSError, ValueError)):
        print("text", file=getattr(sys, name), flush=True)
    with unfailing_output():
        print("text", file=getattr(sys, name), flush=True)
        assert getattr(sys, name).write("text") == 4
        with tqdm(total=2, file=getattr(sys, name)) as bar:
            bar.update(1)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("text", stacklevel=1)
    assert getattr(sys, name) is stream


def test_what_can_be_printed_is_printed_and_errors_of_others_come_out(capsys: pytest.CaptureFixture[str]) -> None:
    with unfailing_output(), unfailing_output():
        sys.stdout.write("text\n")
    with pytest.raises(ValueError, match="not of a stream"), unfailing_output():
        raise ValueError("not of a stream")
    sys.stdout.write("more\n")
    assert capsys.readouterr().out == "text\nmore\n"


def test_a_method_that_is_replaced_meanwhile_stays_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with unfailing_output():
        before = sys.stdout.write
        sys.stdout.write = lambda text: written.append(text) or before(text)  # type: ignore[method-assign,func-returns-value]
    sys.stdout.write("text")
    assert (written, stream.getvalue()) == (["text"], "text")


def test_a_process_without_streams_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with unfailing_output():
        assert sys.stderr is None


def test_progress_bars_are_not_printed_through_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    class Proxy(io.StringIO):
        rich_proxied_file = io.StringIO()

    monkeypatch.setattr(sys, "stderr", Proxy())
    with unfailing_output():
        stream_of_progress().write("50 %")
    assert (Proxy.rich_proxied_file.getvalue(), sys.stderr.getvalue()) == ("50 %", "")
    monkeypatch.setattr(sys, "stderr", None)
    assert stream_of_progress() is None
