"""Models of entailment stay what the zero-shot pipeline needs: it finds `entailment` in their labels."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

import sparsebert
from tiny_run import QUICK, WORDS, run_cli, save_tiny

# Neither in the order of the task below, nor in its spelling.
NAMES = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
MODEL = {"num_labels": 3, "id2label": dict(enumerate(NAMES)), "label2id": {name: row for row, name in enumerate(NAMES)}}
TOPICS = ["good", "bad", "w1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of entailment, and pairs of texts whose labels are words."""
    folder = tmp_path_factory.mktemp("nli")
    save_tiny(folder / "model", **MODEL)
    (folder / "data").mkdir()
    draw = random.Random(0)
    for name, count in (("train", 48), ("validation", 24)):
        with (folder / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["premise", "hypothesis", "label"])
            for row in range(count):
                sides = [" ".join(draw.choices(WORDS, k=4)) for _ in range(2)]
                writer.writerow([f"{sides[0]} {name}", sides[1], NAMES[row % 3].lower()])
    return folder


def zero_shot(folder: Path) -> dict[str, float]:
    """The scores of TOPICS for a text, as the pipeline gives them."""
    ask: Any = pipeline("zero-shot-classification", model=str(folder))
    assert ask.model.config.id2label[ask.entailment_id].lower() == "entailment"
    found = ask("good w3 w4", candidate_labels=TOPICS, hypothesis_template="this is {}")
    return dict(zip(found["labels"], found["scores"], strict=True))


def by_hand(folder: Path) -> dict[str, float]:
    """The softmax over topics of the logits of entailment, by the pipeline's definition."""
    predictor = sparsebert.Predictor(folder, "eager")
    rows = predictor.outputs(["good w3 w4"] * 3, [f"this is {topic}" for topic in TOPICS])
    place = [name.lower() for name in predictor.labels].index("entailment")
    return dict(zip(TOPICS, torch.softmax(torch.tensor(rows[:, place]), dim=0).tolist(), strict=True))


def made(home: Path, command: str, *arguments: object) -> Path:
    columns = ("--text-column", "premise", "--text-column", "hypothesis")
    given = (home / "model", "--task", "nli", "--data", home / "data", *columns, "-o", home / command, *arguments)
    said = run_cli(command, *given, "--set", "measure.rounds=3")
    assert said.exit_code == 0, said.output
    return home / command


def test_the_dense_model_and_its_family(home: Path):
    folder = made(home, "compress", *QUICK, "--sparsity", 0.5, "--set", "finetune.max_steps=3")
    # The head was put into the task's order, and says the same of every topic as before.
    assert zero_shot(folder / "dense") == pytest.approx(zero_shot(home / "model"), abs=1e-5)
    for name in ("dense", "0.5-sparsity"):
        assert zero_shot(folder / name) == pytest.approx(by_hand(folder / name), abs=1e-5)
    assert run_cli("pack", folder / "0.5-sparsity", "-o", home / "packed").exit_code == 0
    assert zero_shot(home / "packed") == pytest.approx(zero_shot(folder / "0.5-sparsity"), abs=1e-6)


def test_a_model_that_was_fine_tuned_again(home: Path):
    folder = made(home, "finetune", "--set", "training.max_steps=3") / "finetuned"
    assert zero_shot(folder) == pytest.approx(by_hand(folder), abs=1e-5)


def test_labels_that_are_numbers_leave_the_names_of_the_model(home: Path):
    data = home / "numbered"
    data.mkdir()
    for name in ("train", "validation"):
        text = (home / "data" / f"{name}.csv").read_text("utf-8")
        for number, label in enumerate(NAMES):
            text = text.replace(label.lower(), str(number))
        (data / f"{name}.csv").write_text(text, "utf-8")
    columns = ("--text-column", "premise", "--text-column", "hypothesis")
    given = ("--task", "nli", "--data", data, *columns, "-o", home / "kept", "--set", "training.max_steps=2")
    assert run_cli("finetune", home / "model", *given, "--set", "measure.rounds=3").exit_code == 0
    assert zero_shot(home / "kept" / "finetuned") == pytest.approx(by_hand(home / "kept" / "finetuned"), abs=1e-5)
