"""What a run says of a model that finds answers badly, and the card of its folder: all of its code works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sparsebert.records import Record, read_record
from test_spans_runs import squad
from tiny_run import run_cli, save_tiny

FOLDER = "path/to/this/folder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fine-tuning that was over after one step."""
    home = tmp_path_factory.mktemp("card")
    save_tiny(home / "model", "base")
    (home / "data").mkdir()
    for name, count in (("train", 40), ("dev", 60)):
        (home / "data" / f"{name}-v2.0.json").write_text(squad(name, count), encoding="utf-8")
    settings = ("training.max_steps=1", "training.evaluate=null", "measure.timed=false")
    more = (part for one in settings for part in ("--set", one))
    given = ("--kind", "spans", "--task", "mine", "--data", home / "data", "-o", home / "run", *more)
    said = run_cli("finetune", home / "model", *given)
    assert said.exit_code == 0, said.output
    assert "Note: finetuned is no better than always saying that there is no answer (answer f1" in said.stdout
    return home / "run" / "finetuned"


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return read_record(folder.parent / "record.json")


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_what_is_no_better_than_the_empty_answer_has_a_note(record: Record):
    (score, *_) = record.models[0].scores
    assert score.low is not None and score.baseline == 0.5 and score.low <= 0.5
    (note,) = [one for one in record.notes if "no better than" in one]
    assert note.endswith("; always the same gives 50.0%)")


def test_all_code_of_the_card_works(folder: Path, card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ask, logits = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(compile(ask.replace(FOLDER, str(folder)), "card", "exec"), {})
    assert "'answerable': " in capsys.readouterr().out
    found: dict[str, object] = {}
    exec(compile(logits.replace(FOLDER, str(folder)), "card", "exec"), found)
    assert {"starts", "ends"} <= found.keys() and "import sparsebert" not in logits
    (shell,) = re.findall(r"```sh\nsparsebert (predict .*?)\n```", card)
    assert "a file with columns `question` and `context` or SQuAD's `.json`:" in card
    asked = tmp_path / "questions.jsonl"
    asked.write_text(json.dumps({"question": "w45 w41", "context": "w1 w50"}), encoding="utf-8")
    words = shlex.split(shell.replace(FOLDER, str(folder)).replace(asked.name, str(asked)))
    assert run_cli(*words).exit_code == 0


def test_the_card_claims_nothing_of_a_model_that_was_not_cut(card: str):
    assert "fine-tuned on mine; its shape is what it was." in card
    assert "is one is 0.500 or more; else there is none. None was chosen." in card
    for claimed in ("Plain `transformers` is enough", "The others of the run", "pruning", "came with the model"):
        assert claimed not in card
