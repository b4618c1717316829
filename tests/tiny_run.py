"""A whole run in seconds: a saved tiny model with a tokenizer, a small task that a keyword decides, few steps."""

from __future__ import annotations

import csv
import functools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import BertTokenizerFast
from typer import testing

from sparsebert.cli.application import app
from sparsebert.models.families import HeadName
from sparsebert.reports.theme import PICTURES
from tiny import tiny_model

# Made of the signatures of all functions anew at every call, which takes ten times as long as to refuse a word.
testing._get_command = functools.cache(testing._get_command)  # pyright: ignore[reportPrivateImportUsage]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("good", "bad", *(f"w{number}" for number in range(60)))
QUICK = tuple(
    part
    for setting in (
        "measure.rounds=3",
        "search.examples=32",
        "search.score_examples=16",
        "search.candidates=3",
        "dense.max_steps=6",
    )
    for part in ("--set", setting)
)


def run_cli(*arguments: object, stdin: str | None = None, pictures: bool = False) -> Any:
    """The command in this process: `exit_code`, `stdout`, `stderr`; its reports have pictures where they are wanted."""
    environment = {PICTURES: "on"} if pictures else {}
    return testing.CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env=environment)


def assert_refused(said: Any, expected: Sequence[str]) -> None:
    """One line on stderr that holds the expected words, nothing on stdout, exit code 2."""
    assert said.exit_code == 2, said.output
    lines = said.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said.stderr
    for words in expected:
        assert words in lines[0]
    assert said.stdout == ""


def save_tiny(folder: Path, task: HeadName = "classification", **overrides: Any) -> Path:
    """A tiny BERT of 3 layers with its tokenizer; with a head it counts as fine-tuned for two classes."""
    tiny_model("bert", task, **{"num_labels": 2, **overrides}).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate((*SPECIAL, *WORDS))}).save_pretrained(folder)
    return folder


def write_task(folder: Path, train: int = 64, validation: int = 40) -> Path:
    """`train.csv` and `validation.csv`: `label` is whether the text says good or bad, `score` the same as a number."""
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("validation", validation)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "score"])
            writer.writerows(_rows(name, count))
    return folder


def _rows(seed: str, count: int) -> Iterator[tuple[str, str, float]]:
    draw = random.Random(seed)
    for number in range(count):
        words = draw.choices(WORDS[2:], k=draw.randint(2, 9))
        words.insert(draw.randrange(len(words) + 1), WORDS[number % 2])
        yield " ".join(words), ("yes", "no")[number % 2], 1.0 - number % 2 + len(words) / 100
