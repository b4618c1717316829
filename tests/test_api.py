"""The package as functions: objects and names, what they give back, and that the same call goes on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from transformers import BertTokenizerFast, TrainerCallback

import sparsebert
from sparsebert.errors import UserError
from sparsebert.models.load import load_model, load_tokenizer
from tiny_run import save_tiny, write_task

QUICK: dict[str, Any] = {
    "search": {"examples": 32, "score_examples": 16, "candidates": 3},
    "measure": {"rounds": 3},
    "finetune": {"max_steps": 3},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    save_tiny(folder / "model")
    write_task(folder / "data")
    return folder


def rows(file: Path) -> Dataset:
    with file.open(encoding="utf-8") as lines:
        return Dataset.from_list([{"text": row["text"], "label": row["label"]} for row in csv.DictReader(lines)])


@pytest.fixture(scope="module")
def family(home: Path) -> sparsebert.RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return sparsebert.compress("model", data="data", sparsity=(0.6, 0.3), output="family", progress=False, **QUICK)


def test_compress_gives_the_models_and_their_record(home: Path, family: sparsebert.RunResult):
    assert list(family.models) == ["dense", "0.3-sparsity", "0.6-sparsity"]
    assert family.record.task == "custom" and family.record.command == "a Python script"
    assert family.record.recipe["finetune"]["max_steps"] == 3 and family.record.recipe["finetune"]["epochs"] == 2.0
    model, tokenizer = family["0.6-sparsity"].load()
    assert model.config.num_labels == 2 and tokenizer("good")["input_ids"]
    assert "<table" in family._repr_html_() and "0.3-sparsity" in family._repr_html_()
    assert sparsebert.open_run(home / "family").record == family.record
    with pytest.raises(UserError, match=r"Unknown model of the run '0.5-sparsity'.*Did you mean"):
        family["0.5-sparsity"]


def test_the_best_is_the_smallest_within_the_drop(family: sparsebert.RunResult):
    scores = {"dense": 0.9, "0.3-sparsity": 0.895, "0.6-sparsity": 0.8}

    def scored(model: Any) -> Any:
        own = [one.model_copy(update={"value": scores[model.name]}) for one in model.scores]
        return model.model_copy(update={"scores": tuple(own)})

    record = family.record.model_copy(update={"models": tuple(map(scored, family.record.models))})
    result = sparsebert.RunResult(record, family.folder)
    best = {drop: result.best(max_drop=drop).name for drop in (0.0, 0.5, 1.0, 9.9, 10.0)}
    assert best == {0.0: "dense", 0.5: "0.3-sparsity", 1.0: "0.3-sparsity", 9.9: "0.3-sparsity", 10.0: "0.6-sparsity"}
    bare = record.model_copy(update={"models": record.models[1:]})
    with pytest.raises(UserError, match="no dense model with a score"):
        sparsebert.RunResult(bare, family.folder).best()


def test_the_same_call_only_reads(home: Path, family: sparsebert.RunResult, capsys: pytest.CaptureFixture[str]):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        again = sparsebert.compress("model", data="data", sparsity=(0.6, 0.3), output="family", **QUICK)
    assert again.record == family.record and "finished before" in capsys.readouterr().err


def test_objects_are_kept_as_files_and_give_the_same_models(home: Path, family: sparsebert.RunResult, tmp_path: Path):
    data = DatasetDict({name: rows(home / "data" / f"{name}.csv") for name in ("train", "validation")})
    model, tokenizer = load_model(home / "model"), load_tokenizer(home / "model")
    given = {"data": data, "tokenizer": tokenizer, "sparsity": [0.3], "progress": False, **QUICK}
    result = sparsebert.compress(model, output=tmp_path / "out", **given)
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "inputs").iterdir()) == ["data", "model"]
    expected, got = (load_model(one["0.3-sparsity"].folder).state_dict() for one in (family, result))
    assert all(torch.equal(expected[name], got[name]) for name in expected) and expected.keys() == got.keys()
    again = sparsebert.compress(model, output=tmp_path / "out", **given)
    assert again.record == result.record


def test_another_tokenizer_is_another_run(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    data = rows(home / "data" / "train.csv")
    model, tokenizer = load_model(home / "model"), load_tokenizer(home / "model")
    words = sorted(tokenizer.get_vocab(), key=lambda word: (word[0] != "[", word))
    other = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    given = {"data": data, "training": {"max_steps": 1}, "measure": {"timed": False}, "progress": False}
    capfd.readouterr()
    first = sparsebert.finetune(model, tokenizer=tokenizer, output=tmp_path / "first", **given)
    assert "".join(capfd.readouterr()) == ""
    tokenizer(["good", "bad w1"], padding=True, truncation=True, max_length=4)
    again = sparsebert.finetune(model, tokenizer=tokenizer, output=tmp_path / "first", **given)
    assert again.record == first.record
    changed = sparsebert.finetune(model, tokenizer=other, output=tmp_path / "second", **given)
    assert changed.record.recipe["model"] != first.record.recipe["model"]
    assert changed["finetuned"].load()[1].get_vocab() == other.get_vocab()


def test_one_run_stands_for_itself(home: Path, family: sparsebert.RunResult):
    for one in (family, family.folder, str(family.folder)):
        assert sparsebert.report(one) == family.folder / "report.html"
    quick: dict[str, Any] = {"length": 8, "rounds": 1, "progress": False}
    found = sparsebert.bench(family, **quick)
    assert [row.model for row in found.rows] == list(family.models)
    assert len(sparsebert.bench(str(home / "model"), runtimes="eager", **quick).rows) == 1
    with pytest.raises(UserError, match="needs at least one round; got 0"):
        sparsebert.bench(family, length=8, rounds=0)
    with pytest.raises(UserError, match="A report needs at least one run"):
        sparsebert.report([])
    failed = family.record.model_copy(update={"models": (), "message": "The loss became nan."})
    with pytest.raises(UserError, match=r"The run has no models.*The loss became nan"):
        sparsebert.RunResult(failed, family.folder).best()


def test_callbacks_take_part_in_every_training(home: Path, tmp_path: Path):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.steps += 1

    count = Count()
    rules = {"one": [sparsebert.Rule(sparsity=0.5)], "two": []}
    phases = [{"name": name, "training": {"max_steps": 2}, "rules": own} for name, own in rules.items()]
    given = {"data": str(home / "data"), "output": tmp_path / "out", "measure": {"timed": False}, "progress": False}
    result = sparsebert.train(str(home / "model"), phases=phases, callbacks=[count], **given)
    assert count.steps == 4 and result.record.kind == "train"
    assert result["sparse"].result.sparsity.encoder_linear == pytest.approx(0.5, abs=0.01)


def test_fff(home: Path, tmp_path: Path):
    short = {"steps": 10, "examples": 16, "controls": False}
    given = {"data": str(home / "data"), "output": tmp_path / "out", "measure": {"timed": False}, "progress": False}
    result = sparsebert.fff(
        str(home / "model"),
        depth=1,
        finetune=None,
        settings=[f"trees.{key}={str(value).lower()}" for key, value in short.items()],
        **given,
    )
    assert list(result.models) == ["dense", "fff-1x1"] and result["fff-1x1"].result.trees


BAD = {
    "A model object needs its tokenizer": lambda home: {"model": load_model(home / "model")},
    "This is no model of transformers itself; got DataParallel; give model.module": lambda home: {
        "model": torch.nn.DataParallel(load_model(home / "model")),
        "tokenizer": load_tokenizer(home / "model"),
    },
    "The model is neither a name nor a model of transformers; got int": lambda home: {"model": 3},
    "The tokenizer is none of transformers; got str": lambda home: {
        "model": load_model(home / "model"),
        "tokenizer": str(home / "model"),
    },
    "it lies on the device meta": lambda home: {
        "model": load_model(home / "model").to("meta"),
        "tokenizer": load_tokenizer(home / "model"),
    },
    "A model that is named has its own tokenizer": lambda home: {
        "tokenizer": load_tokenizer(home / "model"),
    },
    "no mapping of them with a split `train`; got IterableDataset": lambda home: {
        "data": IterableDataset.from_generator(lambda: iter([{"text": "a"}]))
    },
    "A recipe cannot hold this value of seed": lambda home: {"seed": object()},
    "The recipe is of kind train; use `sparsebert train`.": lambda home: {"kind": "train"},
    "Unknown recipe key 'sparsities'": lambda home: {"sparsities": 0.5},
    "The recipe is of kind train; use `sparsebert train`": lambda home: {"recipe": "random"},
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(home: Path, tmp_path: Path, said: str):
    given = {"model": str(home / "model"), "data": str(home / "data"), "speedup": 2, **BAD[said](home)}
    with pytest.raises(UserError) as caught:
        sparsebert.compress(output=tmp_path / "out", **given)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "inputs").exists()
