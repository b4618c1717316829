"""Command lines of all kinds of nonsense: exit code 0, 1 or 2, at most one line of error, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import event, given
from hypothesis import strategies as st

from fuzz import fuzzed, tree
from sparsebert.cli.application import app
from tiny_run import run_cli, save_tiny, write_task

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# Models that are none, so that no command has work to do: what is tried is everything before.
NOWHERE = ("./nowhere", "no/such/folder", "nobody/nothing", "~nobody/x", "..", "/", "a\nb", "", ".", "x" * 300)
WORDS = (
    *(
        "",
        "0",
        "1",
        "-1",
        "2x",
        "3ms",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 30,
        "9" * 5000,
        "٣",
        "1_0",
        "0x1",
        "None",
    ),
    *(
        "reviews",
        "rte",
        "mine",
        "../../../escaped",
        "/etc/passwd",
        "a" * 300,
        "\x1b[2J",
        "\u202e",
        "é",
        "-",
        "--",
        "--json",
    ),
    *("seed=1", "seed=", "=", "a.b.c=1", "phases.0.name=../x", "search=&a [*a]", "sparsity=0:1:0", "sparsity=0.5,0.5"),
    *(
        "seed=!!int 1",
        "columns.text=[a, b]",
        "targets=[{kind: speedup, value: .nan}]",
        "measure.batch=99999999999999999",
    ),
    *(
        "cofi",
        "recipe.yaml",
        "bad.yaml",
        "data",
        "out",
        ".",
        "..",
        "model",
        "train.csv",
        "\ud800",
        "[red]x[/]",
        ":smile:",
    ),
)
VALUES = st.sampled_from(WORDS) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model, data and recipes, from which the commands are called."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny(folder / "model")
    write_task(folder / "data")
    (folder / "recipe.yaml").write_text("task: mine\ndata: data\nmodel: ./nowhere\n", encoding="utf-8")
    (folder / "bad.yaml").write_bytes(b"\xff\xfe: [")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@st.composite
def command_lines(draw: Callable[..., Any], names: tuple[str, ...], without: tuple[str, ...] = ()) -> list[str]:
    """A command with some of its options, and values that may or may not be of their types."""
    name = draw(st.sampled_from(names))
    # With --debug a traceback is what was asked for.
    params = [param for param in COMMANDS[name].params if param.name not in ("debug", *without)]
    options = [param for param in params if param.param_type_name == "option"]
    line = [name]
    for option in draw(st.lists(st.sampled_from(options), max_size=6)):
        line.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag:
            line.append(draw(VALUES))
    return line + draw(st.lists(VALUES, max_size=2))


def run_nonsense(line: list[str], place: Path) -> None:
    before = tree(place)
    said = run_cli(*line)
    assert said.exception is None or isinstance(said.exception, SystemExit), ascii(line)
    assert said.exit_code in (0, 1, 2), ascii(line)
    errors = [text for text in said.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == (said.exit_code != 0) and "Traceback" not in said.output, said.output
    assert tree(place) == before, ascii(line)
    event(f"exit code {said.exit_code}")


MAKING = ("compress", "train", "fff", "pack", "sweep", "bench", "doctor", "predict", "info")


@fuzzed
@given(line=command_lines(MAKING), model=st.sampled_from(NOWHERE))
def test_commands_with_models_that_are_none(line: list[str], model: str, place: Path) -> None:
    # The model comes first, so that what else is drawn cannot take its place.
    given_first = ["cofi", "--model", model] if line[0] == "sweep" else [model]
    run_nonsense([line[0], *given_first, *line[1:]], place)


@fuzzed
@given(line=command_lines(("predict", "info"), without=("output",)))
def test_commands_that_open_a_model(line: list[str], place: Path) -> None:
    run_nonsense([line[0], "./model", *line[1:]], place)


@fuzzed
@given(line=command_lines(("report", "compare", "tasks", "models", "recipes")))
def test_commands_that_read_records_and_lists(line: list[str], place: Path) -> None:
    run_nonsense(line, place)


@fuzzed
@given(word=st.sampled_from([*COMMANDS, "--version", "--help", "-h", "--verson", "comress"]) | VALUES, more=VALUES)
def test_words_that_may_be_commands(word: str, more: str, place: Path) -> None:
    run_nonsense([word, "--help", more] if word in COMMANDS else [word], place)
    run_nonsense([more, word, "--help"], place)
