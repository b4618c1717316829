"""`sparsebert predict --file -`: JSON lines from stdin, each answered as it comes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sparsebert import progress
from sparsebert.cli import texts as texts_module
from sparsebert.cli.application import app
from tiny_run import assert_refused, run_cli, save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("predict") / "model")


def found(said: Any) -> dict[str, Any]:
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def given_rows(model: Path, content: bytes, *more: object) -> Any:
    command = ["predict", str(model), "--file", "-", *map(str, more)]
    return CliRunner().invoke(app, command, input=content)


def test_json_lines_of_stdin_are_answered_line_by_line(model):
    content = b'{"body": "good w1", "n": 7}\n\n{"body": "", "n": "x"}\n{"body": "bad \xc3\xa9", "n": null}'
    said = given_rows(model, content, "--text-column", "body", "--id-column", "n", "--output", "-")
    assert said.exit_code == 0, said.output
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [(7, "good w1"), ("x", ""), (None, "bad \u00e9")]
    assert "Note: 1 of 3 texts are empty" in said.stderr
    given = [
        row["probabilities"]
        for row in found(run_cli("predict", model, "good w1", "", "bad \u00e9", "--json"))["predictions"]
    ]
    for row, expected in zip(rows, given, strict=True):
        assert row["probabilities"] == pytest.approx(expected, rel=1e-5)
    numbered = found(given_rows(model, b'{"text": "good"}\n{"text": "bad"}\n', "--json"))["predictions"]
    assert [row["id"] for row in numbered] == [1, 2]


def test_a_bar_leaves_stdout_to_the_answers(model, monkeypatch, tmp_path):
    """In a terminal, after two seconds."""
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    shown = tmp_path / "terminal"
    with shown.open("w", encoding="utf-8") as terminal:
        monkeypatch.setattr(progress, "console", Console(file=terminal, force_terminal=True))
        said = given_rows(model, b'{"text": "good"}\n{"text": "bad"}\n' * 40, "--output", "-")
        whole = found(run_cli("predict", model, "good", "bad", "--json"))
    assert [json.loads(line)["text"] for line in said.stdout.splitlines()] == ["good", "bad"] * 40
    assert len(whole["predictions"]) == 2 and "Predicting" in shown.read_text(encoding="utf-8")


def test_rows_before_one_that_does_not_do_are_answered(model):
    said = given_rows(model, b'{"text": "good"}\n{"text": "\\ud83d"}\n{"text": "bad"}\n', "--output", "-")
    assert said.exit_code == 2 and [json.loads(line)["text"] for line in said.stdout.splitlines()] == ["good"]
    assert "stdin, line 2: the text holds half of a letter" in said.stderr


@pytest.mark.process
def test_a_row_is_answered_before_the_next_has_come(model):
    """As a program asks that waits for each answer."""
    command = [
        sys.executable,
        "-m",
        "sparsebert",
        "predict",
        str(model),
        "--file",
        "-",
        "-o",
        "-",
        "--runtime",
        "eager",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        for number, text in enumerate(("good", "bad w1", "good w2"), start=1):
            process.stdin.write(json.dumps({"text": text}).encode() + b"\n")
            process.stdin.flush()
            row = json.loads(process.stdout.readline())
            assert (row["id"], row["text"]) == (number, text)
        process.stdin.close()
        assert process.stdout.read() == b"" and process.wait(timeout=60) == 0, process.stderr.read()
        watchdog.cancel()


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (b'{"text": "good"}\n{text}\n', (), ["stdin, line 2 is no JSON"]),
        (b'{"text": "\xff"}\n', (), ["stdin, line 1 is no JSON", "decode"]),
        (b"[1]\n", (), ["stdin, line 1 is no JSON object; got", "[1]"]),
        (b'\n{"txt": "good"}\n', (), ["stdin, line 2 has no 'text'; allowed: txt", "--text-column"]),
        (b'{"text": 3}\n', (), ["stdin, line 1: the text must be a string; got", "3"]),
        (b'{"text": null}\n', (), ["stdin, line 1: the text must be a string; got", "null"]),
        (b"{}\n", (), ["stdin, line 1 has no 'text'; name it with --text-column"]),
        (b'{"text": "a"}\n', ("--id-column", "n"), ["stdin, line 1 has no 'n'", "name it with --id-column"]),
        (b'{"text": "a", "n": {"b": 1}}\n', ("--id-column", "n"), ["an id must be a string, a finite number or null"]),
        (b'{"text": "a", "n": 1e400}\n', ("--id-column", "n"), ["an id must be a string, a finite number or null"]),
        (b'{"text": "a", "n": "\\ud800"}\n', ("--id-column", "n"), ["line 1: the id holds half of a letter"]),
        (b'{"text": "a"}\n', ("--encoding", "cp1252"), ["JSON lines are UTF-8"]),
        (b"", (), ["There is no text"]),
        (b"\n \n", (), ["There is no text"]),
        (b'{"text": "a"}\n', ("--json", "--output", "-"), ["--json prints one object"]),
    ],
)
def test_json_lines_that_do_not_do_are_refused(model, content, more, words):
    assert_refused(given_rows(model, content, *more), words)


def test_an_id_may_be_larger_than_any_float(model):
    line = b'{"text": "good", "n": 1' + b"0" * 400 + b"}\n"
    options = ["predict", str(model), "--file", "-", "--output", "-", "--id-column", "n"]
    said = CliRunner().invoke(app, options, input=line)
    assert said.exit_code == 0 and json.loads(said.stdout)["id"] == 10**400


class Arriving(io.BytesIO):
    """A stream that gives a few bytes at a time, whatever is asked for."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(3)


@hypothesis.given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=6), st.booleans())
def test_lines_are_whole_however_they_arrive(lines: list[bytes], ended: bool):
    content = b"\n".join(lines) + (b"\n" if ended else b"")
    found = [line for part in texts_module._arrived(Arriving(content)) for line in part]
    expected = list(enumerate(content.split(b"\n"), start=1))
    assert found == [(number, line) for number, line in expected if line.strip()]
