"""`compress --hidden-size`: dimensions of embeddings and all layers go first, and every smaller model has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from sparsebert.records import read_record
from test_embeddings import save_embedder
from tiny import HIDDEN
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task

RECOVERY = ("--set", "finetune.max_steps=2", "--set", "distill.hidden=1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("hidden")
    save_tiny(found / "model")
    write_task(found / "task")
    return found


def compress(home: Path, *options: object) -> Any:
    return run_cli("compress", home / "model", "--task", "own", "--data", home / "task", *QUICK, *options)


def test_every_smaller_model_has_the_dimensions_that_stay(home: Path, tmp_path: Path):
    command = ("--hidden-size", 24, "--sparsity", 0.6, "--vocabulary", "auto", *RECOVERY, "-o", tmp_path / "out")
    said = compress(home, *command)
    assert said.exit_code == 0, said.output
    assert f"narrow: 24 of {HIDDEN} dimensions stay" in said.stderr
    dense, vocabulary, narrow, small = read_record(tmp_path / "out" / "record.json").models
    assert (narrow.name, small.target_value) == ("narrow", 0.6)
    assert (
        dense.shape is not None
        and vocabulary.shape is not None
        and dense.shape.hidden is vocabulary.shape.hidden is None
    )
    for model in (narrow, small):
        assert model.shape is not None and (model.shape.hidden, model.shape.full_hidden) == (24, HIDDEN)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / model.folder)
        assert loaded.config.hidden_size == loaded.get_input_embeddings().embedding_dim == 24
    assert narrow.shape is not None and narrow.shape.heads == dense.shape.heads
    assert narrow.training is not None and narrow.one_shot_scores
    # A quarter of every matrix's rows or columns is gone before anything else is cut.
    assert narrow.sparsity.encoder_linear == pytest.approx(0.25)
    assert small.sparsity.encoder_linear == pytest.approx(0.6, abs=0.07)
    again = compress(home, *command)
    assert again.exit_code == 0 and read_record(tmp_path / "out" / "record.json").models[3].files == small.files
    card = (tmp_path / "out" / small.folder / "README.md").read_text(encoding="utf-8")
    assert (
        f"Hidden states have 24 of {HIDDEN} dimensions." in card
        and "embeddings and vocabulary are unchanged" not in card
    )
    shown = run_cli("info", tmp_path / "out" / small.folder)
    assert f"Hidden states have 24 of {HIDDEN} dimensions." in shown.stdout
    again = run_cli(
        "finetune",
        tmp_path / "out" / "narrow",
        "--task",
        "own",
        "--data",
        home / "task",
        "--teacher",
        home / "model",
        "--set",
        "training.max_steps=2",
        "--set",
        "distill.hidden=1",
        "-o",
        tmp_path / "more",
    )
    assert again.exit_code == 0, again.output


def test_a_speedup_is_against_the_model_with_all_dimensions(home: Path, tmp_path: Path):
    said = compress(home, "--hidden-size", 16, "--speedup", 1.5, "--no-finetune", "-o", tmp_path / "out")
    assert said.exit_code == 0, said.output
    files = {file.name for file in (tmp_path / "out" / "work").glob("latency-*.json")}
    assert len(files) == 2 and any(name.endswith("-16.json") for name in files)
    models = read_record(tmp_path / "out" / "record.json").models
    assert [model.name for model in models] == ["dense", "narrow", "1.5x"]


REFUSED = {
    "as large": (("--hidden-size", HIDDEN), ("The hidden size is out of range", f"got {HIDDEN}", "1 to 31")),
    "even": (("--hidden-size", 16, "--speedup", 2, "--even"), ("plain transformers derives the size of heads",)),
    "nothing": (("--hidden-size", 0), ("hidden_size", "greater than or equal to 1")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_size_that_cannot_be_is_refused_before_anything_is_made(name: str, home: Path, tmp_path: Path):
    options, expected = REFUSED[name]
    assert_refused(compress(home, *options, "-o", tmp_path / "out"), expected)
    assert not (tmp_path / "out" / "dense").exists()


def test_embeddings_keep_their_length(tmp_path: Path):
    save_embedder(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(f"good w{number} bad" for number in range(40)), encoding="utf-8")
    data = ("--task", "embeddings", "--data", tmp_path / "texts.txt", "--hidden-size", 16)
    said = run_cli("compress", tmp_path / "model", *data, *QUICK, "-o", tmp_path / "out")
    assert_refused(said, ("gives embeddings of another length", "leave --hidden-size out"))
