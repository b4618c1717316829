"""One encoder with three heads: turns by hand, exact resume, scores of each task, and what `split` makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file
from scipy.stats import pearsonr
from transformers import AutoModelForSequenceClassification

import sparsebert
from course import write_course
from sparsebert.data.encode import encode
from sparsebert.data.load import load_task
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.models.pair_classes import set_head_dropout
from sparsebert.models.split import HEADS, split_heads
from sparsebert.models.surgeon import mask_model, shrink
from sparsebert.recipe.load import load_recipe
from sparsebert.recipe.schema import Training
from sparsebert.records import PREDICTIONS, read_record
from sparsebert.tasks.kind import task_kind
from sparsebert.training.collate import PaddingCollator, padding_collator
from sparsebert.training.finetune import fine_tune
from sparsebert.training.rounds import HeadRows, RoundCollator, RoundRobin, RoundRows
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

QUICK = ("--set", "training.max_steps=9", "--set", "measure.timed=false", "--set", "training.learning_rate=1e-3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, the course's files, and a finished run."""
    folder = tmp_path_factory.mktemp("multitask")
    save_tiny(folder / "base", "base")
    write_course(folder / "course")
    given = ("multitask", folder / "base", "--data", folder / "course", "-o", folder / "run")
    said = run_cli(*given, *QUICK, "--set", "score_train=true")
    assert said.exit_code == 0, said.output
    return folder


def sets_of(*sizes: tuple[int, int]) -> list[HeadRows]:
    """Sets named a, b, c of so many rows, and so many of them a step."""
    return [
        HeadRows(name, Dataset.from_dict({"length": [3] * rows}), batch)
        for name, (rows, batch) in zip("abc", sizes, strict=False)
    ]


def test_sets_take_turns_until_the_longest_has_been_seen():
    order = RoundRobin(sets_of((4, 2), (12, 4), (5, 5)), seed=0)
    batches = list(order)
    assert len(order) == len(batches) == 9
    assert [one.place for one in batches] == [0, 1, 2] * 3
    assert [len(one.rows) for one in batches] == [2, 4, 5] * 3
    seen = Counter((one.place, row) for one in batches for row in one.rows)
    assert {row: seen[1, row] for row in range(12)} == dict.fromkeys(range(12), 1)
    # The first set has two batches a pass: after them it begins anew, and the next epoch takes its fourth batch.
    order.set_epoch(1)
    again = [set(one.rows) for one in (*batches, *order) if one.place == 0]
    assert [again[0] | again[1], again[2] | again[3], again[4] | again[5]] == [set(range(4))] * 3
    order.set_epoch(0)
    assert list(order) == batches
    assert [one.rows for one in RoundRobin(sets_of((40, 2)), seed=0)] != [
        one.rows for one in RoundRobin(sets_of((40, 2)), seed=1)
    ]


def test_an_epoch_may_last_as_long_as_the_shortest_set():
    assert len(RoundRobin(sets_of((4, 2), (12, 4), (5, 5)), 0, "shortest")) == 3


def train(home: Path, folder: Path, interrupt_at: int | None = None) -> dict[str, torch.Tensor]:
    tokenizer, model = load_tokenizer(home / "base"), tiny_model("bert", "multitask", num_labels=5)
    sets, seen = [], 0
    for (head, task), size in zip(HEADS.items(), (4, 8, 4), strict=True):
        loaded = load_task(task, str(home / "course"))
        rows = encode(loaded.train, tokenizer, 64, kind=task_kind(loaded.spec.kind)).dataset
        sets.append(HeadRows(head, rows, size))
    order, collate = RoundRobin(sets, 0), RoundCollator(padding_collator(tokenizer))

    def counted(items: Sequence[Any]) -> Any:
        nonlocal seen
        seen += 1
        if seen == interrupt_at:
            raise KeyboardInterrupt
        return collate(items)

    training = Training(max_steps=40, batch_size=1, save_steps=5, learning_rate=1e-3)
    fine_tune(model, RoundRows(sets, order), counted, training, folder, 0, "test", order=order)
    return model.state_dict()


def test_an_interrupted_training_ends_as_if_it_had_not_been(home: Path, tmp_path: Path):
    expected = train(home, tmp_path / "whole")
    start = tiny_model("bert", "multitask", num_labels=5).state_dict()
    for name in ("classifier.weight", "paraphrase.linear.weight", "similarity.second.weight"):
        assert not torch.equal(expected[name], start[name])
    # In the second epoch, which has 30 steps.
    with pytest.raises(KeyboardInterrupt):
        train(home, tmp_path / "cut", interrupt_at=34)
    again = train(home, tmp_path / "cut")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_parts_give_what_the_heads_gave(family: str):
    model, batch = tiny_model(family, "multitask", num_labels=5), tiny_batch(rows=4)
    set_head_dropout(model, 0.2)
    keep = {group.name: torch.arange(group.units) % 2 == 0 for group in layout_of(model).groups}
    mask_model(model, keep)
    for whole in (model, shrink(model, keep)):
        parts = split_heads(whole)
        assert [type(one).__name__.partition("For")[2] for one in parts.values()] == [
            "SequenceClassification",
            "PairClassification",
            "PairSimilarity",
        ]
        for head, alone in parts.items():
            assert torch.equal(alone(**batch).logits, whole(**batch, head=head).logits)
    assert split_heads(model)["paraphrase"].classifier.dropout.p == 0.2


def test_scores_are_of_each_task_and_of_all(home: Path):
    record = read_record(home / "run")
    [model] = record.models
    scores = {(one.split, one.metric): one for one in model.scores}
    told = load_file(home / "run" / PREDICTIONS)
    outputs = {task: told[f"multitask/{task} validation/logits"] for task in HEADS.values()}
    labels = {task: told[f"{task} validation/labels"] for task in HEADS.values()}
    main = [float(np.mean(outputs[task].argmax(axis=1) == labels[task])) for task in ("sst5", "quora")]
    main.append(float(pearsonr(outputs["sts"][:, 0], labels["sts"])[0]))
    found = [
        scores[f"{task} validation", metric].value for task, metric in (("sst5", "accuracy"), ("quora", "accuracy"))
    ]
    assert [*found, scores["sts validation", "pearson"].value] == pytest.approx(main, abs=1e-6)
    overall = scores["validation", "overall"]
    assert record.main_metric == "overall" and overall.value == pytest.approx(np.mean(main), abs=1e-6)
    assert overall.baseline == pytest.approx((0.2 + 0.5 + 0) / 3) and overall.examples == 60
    assert overall.low is not None and overall.low < overall.value < (overall.high or 0)
    assert {one.split for one in model.scores} >= {f"{task} train" for task in HEADS.values()}
    assert ("sts train", "loss") in scores and ("sst5 validation", "macro_f1") in scores
    assert model.training is not None and (model.training.steps, model.training.examples) == (9, 120)
    assert record.inputs is not None and {"train", "quora train", "sts validation"} <= record.inputs.data.keys()


def test_the_commands_split_a_run_and_each_part_is_a_model_of_its_task(home: Path, tmp_path: Path):
    said = run_cli("split", home / "run", "-o", tmp_path / "parts")
    assert said.exit_code == 0, said.output
    whole, tokenizer = load_model(home / "run" / "multitask"), load_tokenizer(home / "run" / "multitask")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "parts" / "sentiment")
    given = tokenizer("good w1", return_tensors="pt")
    assert torch.allclose(plain(**given).logits, whole(**given).logits, atol=1e-6)
    assert plain.config.id2label[4] == "very positive"
    told = load_file(home / "run" / PREDICTIONS)
    for head, task in HEADS.items():
        still = (
            "--set",
            "training.learning_rate=1e-30",
            "--set",
            "training.max_steps=1",
            "--set",
            "measure.timed=false",
        )
        options = (*still, "--set", "training.evaluate=null", "--task", task, "--data", home / "course")
        said = run_cli("finetune", tmp_path / "parts" / head, *options, "-o", tmp_path / head)
        assert said.exit_code == 0, said.output
        assert read_record(tmp_path / head).models[0].one_shot_scores, "its head was not recognised"
        own = load_file(tmp_path / head / PREDICTIONS)["finetuned/validation/logits"]
        assert own == pytest.approx(told[f"multitask/{task} validation/logits"], abs=1e-5)
    assert_refused(run_cli("split", home / "run", "-o", tmp_path / "parts"), ["The output folder exists already"])


def test_from_python_and_again(home: Path, tmp_path: Path):
    given: dict[str, Any] = {"data": home / "course", "output": tmp_path / "run", "progress": False}
    values = {"training": {"max_steps": 3}, "measure": {"timed": False}, "head_dropout": 0.1}
    result = sparsebert.multitask(home / "base", **given, **values)
    assert list(result.models) == ["multitask"]
    model, _ = result["multitask"].load()
    assert vars(model.config)["head_dropout"] == model.dropout.p == model.similarity.dropout.p == 0.1
    again = sparsebert.multitask(home / "base", **given, **values)
    assert again.record == result.record


BAD = {
    "Only a multitask model can be split; got BertModel": ("split", "BASE", "-o", "OUT"),
    "has three heads; take it apart with `sparsebert split`": ("finetune", "WHOLE", "--task", "reviews", "-o", "OUT"),
    "has three heads; take it apart with `sparsebert split`, and ask": ("predict", "WHOLE", "good"),
    "several tasks have no score": (
        "multitask",
        "BASE",
        "--data",
        "DATA",
        "--set",
        "training.evaluate={}",
        "-o",
        "OUT",
    ),
    "Task 'sst5' needs the files of the course": ("multitask", "BASE", "-o", "OUT"),
    "A file of task 'sst5' is missing": ("multitask", "BASE", "--data", "HOME", "-o", "OUT"),
    "Input should be 'cs224n', got sst2": ("multitask", "BASE", "--data", "DATA", "--set", "task=sst2", "-o", "OUT"),
    "the columns of the three tasks are fixed": ("multitask", "BASE", "--set", "columns.label=x", "-o", "OUT"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(home: Path, tmp_path: Path, said: str):
    places = {
        "BASE": home / "base",
        "WHOLE": home / "run" / "multitask",
        "DATA": home / "course",
        "HOME": home,
        "OUT": tmp_path / "out",
    }
    assert_refused(run_cli(*(places.get(part, part) for part in BAD[said])), [said])
    assert not (tmp_path / "out").exists()


def test_what_is_of_several_tasks_is_not_compared(home: Path):
    said = run_cli("compare", home / "run", home / "run")
    assert said.exit_code == 2 and "The overall score is of several tasks, and is not compared" in said.stderr


def test_the_shipped_recipe_has_the_numbers_of_the_paper():
    recipe: Any = load_recipe("cs224n-multitask")
    found = (recipe.training.epochs, recipe.training.learning_rate, recipe.training.batch_size)
    assert found == (10, 1e-5, 8) and (recipe.paraphrase_batch_size, recipe.head_dropout) == (40, 0.3)
    for name in ("cs224n-unstructured", "cs224n-layers"):
        phase = load_recipe(name).plain()["phases"][0]["training"]
        assert (phase["epochs"], phase["learning_rate"], phase["batch_size"], phase["dropout"]) == (10, 1e-5, 8, 0.3)


def test_batches_say_which_head_they_are_for():
    sets = [
        replace(one, rows=Dataset.from_dict({"length": [1], "input_ids": [[7]], "row": [0]})) for one in sets_of((1, 1))
    ]
    order = RoundRobin(sets, 0)
    item = RoundRows(sets, order)[next(iter(order))]
    batch = RoundCollator(PaddingCollator(0, 0))([item])
    assert batch["head"] == "a" and batch["input_ids"].tolist() == [[7]] and "rows" not in batch
