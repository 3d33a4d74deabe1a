"""What a run says: lines in a pipe, a bar on a terminal, and any text at all."""

from __future__ import annotations

import io

import pytest

from autotune.progress import Bar, Lines, Reporter, Silent, choose_reporter


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def play(reporter: Reporter) -> None:
    """The events of a short run; its texts hold what terminals treat as markup."""
    reporter.start("llama [/bold] on A100", 4)
    reporter.cell("paged/a100/[x]")
    reporter.advance(1)
    reporter.state(None, {})
    reporter.line("FAILED toy [wrong_result] [/tmp/a.py] relative 1e-2")
    reporter.state(12.345, {"spills": 2, "over_limit": 1})
    reporter.stop()


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    reporter = choose_reporter(False, out)
    assert isinstance(reporter, Lines)
    play(reporter)
    assert out.getvalue().splitlines() == [
        "llama [/bold] on A100",
        "FAILED toy [wrong_result] [/tmp/a.py] relative 1e-2",
    ]


def test_a_pipe_hears_how_far_it_is_after_a_long_silence() -> None:
    out = io.StringIO()
    now = iter([0.0, 0.0, 1.0, 10.0, 10.0, 12.0, 13.0, 20.0, 24.0, 24.0])
    reporter = Lines(out, lambda: next(now))
    reporter.start("verifying", 9)  # speaks at 0
    reporter.cell("toy")
    reporter.advance(1)  # at 1
    reporter.advance(2)  # at 10: speaks
    reporter.advance(1)  # at 12
    reporter.line("a fault")  # at 13
    reporter.advance(1)  # at 20: 7 s after the fault
    reporter.advance(1)  # at 24: speaks
    assert out.getvalue().splitlines() == ["verifying", "3 of 9, toy", "a fault", "6 of 9, toy"]


def test_a_terminal_gets_a_bar_and_every_bracket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminal()
    reporter = choose_reporter(False, out)
    assert isinstance(reporter, Bar)
    play(reporter)
    text = out.getvalue()
    assert "llama [/bold] on A100" in text
    assert "[wrong_result] [/tmp/a.py] relative 1e-2" in text
    assert "paged/a100/[x]" in text
    assert "best 12.3 µs predicted · 1 over_limit, 2 spills" in text


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_quiet_says_nothing(out: io.StringIO) -> None:
    reporter = choose_reporter(True, out)
    assert isinstance(reporter, Silent)
    play(reporter)
    assert out.getvalue() == ""


def test_a_run_that_never_started_stops() -> None:
    bar = Bar(Terminal())
    bar.cell("early")
    bar.advance(1)
    bar.stop()
