"""Progress: one line a step in logs, without bars or blank lines; bars on terminals."""

from __future__ import annotations

import pytest
from rich.console import Console

from sparsebert import progress
from sparsebert.cli.output import remark, say
from sparsebert.progress import Steps, busy, line, tracked


def test_logs_get_a_line_a_step_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    steps = Steps(2)
    steps.begin("The dense model")
    with busy("Measuring") as update:
        update("More")
    assert list(tracked([1, 2], "Searching")) == [1, 2]
    steps.begin("[bold]Report[/bold] :smile:")
    assert capsys.readouterr().err == "[1/2] 0:00 The dense model\n[2/2] 0:00 [bold]Report[/bold] :smile:\n"


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]):
    line("word " * 60)
    assert capsys.readouterr().err.count("\n") == 1


def test_terminals_get_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    terminal = Console(stderr=True, force_terminal=True, _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "console", terminal)
    assert list(tracked([1, 2], "Searching")) == [1, 2]
    assert "Searching" in capsys.readouterr().err


def test_what_is_said_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    line("label \x1b[31m")
    remark("label \x1b[31m")
    say("label \x1b[31m")
    said, shown = capsys.readouterr(), "label \N{REPLACEMENT CHARACTER}[31m\n"
    assert (said.out, said.err) == (shown, 2 * shown)
