"""`sparsebert check`: two models on the same texts, and the exit code of a gate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score

import sparsebert
from sparsebert import Predictor
from sparsebert.models.load import load_tokenizer
from sparsebert.records import Part
from sparsebert.runs.check import CheckResult, LabelRecall, failures
from tiny_run import assert_refused, run_cli, save_tiny, write_task

NAMES = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 labelled texts, and two models that differ in their last bias alone, so that half of the answers differ."""
    found = tmp_path_factory.mktemp("check")
    write_task(found / "task")
    save_tiny(found / "first", num_hidden_layers=1, **NAMES)
    model, outputs = sparsebert.load_model(found / "first"), Predictor(found / "first").outputs(texts_of(found))
    with torch.no_grad():
        model.get_parameter("classifier.bias")[1] -= float(np.median(outputs[:, 1] - outputs[:, 0]))
    sparsebert.save_model(model, load_tokenizer(found / "first"), found / "second")
    return found


def texts_of(home: Path) -> list[str]:
    return [row["text"] for row in rows_of(home)]


def rows_of(home: Path) -> list[dict[str, str]]:
    with (home / "task" / "validation.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def checked(home: Path, *more: object, code: int = 0) -> dict[str, Any]:
    said = run_cli(
        "check", home / "first", home / "second", "--data", home / "task" / "validation.csv", "--json", *more
    )
    assert said.exit_code == code, said.output
    return json.loads(said.stdout)


def test_scores_and_recalls_are_those_of_scikit_learn(home: Path):
    found = checked(home, "--label-column", "label")
    texts, truth = texts_of(home), [row["label"] for row in rows_of(home)]
    said = [[one["label"] for one in Predictor(home / name)(texts)] for name in ("first", "second")]
    for side, answers in zip(("first", "second"), said, strict=True):
        scores = {one["metric"]: one["value"] for one in found[side]}
        assert scores["accuracy"] == pytest.approx(np.mean(np.array(answers) == np.array(truth)))
        recalls = [one[side] for one in found["recalls"]]
        assert recalls == pytest.approx(recall_score(truth, answers, labels=["no", "yes"], average=None))
    assert found["agreement"] == pytest.approx(np.mean([one == other for one, other in zip(*said, strict=True)]))
    assert 0 < found["agreement"] < 1
    flipped = [text for text, one, other in zip(texts, *said, strict=True) if one != other]
    assert [flip["text"] for flip in found["flips"]] == flipped[:20]
    assert [one["rows"] for one in found["recalls"]] == [20, 20] and found["metric"] == "accuracy"
    assert found["runtimes"] == ["eager", "eager"] and found["failures"] == []
    assert found["latency"]["texts"] == 40 and found["latency"]["speedup"] > 0


def test_without_labels_answers_that_differ_are_counted(home: Path):
    found = checked(home)
    assert "first" not in found or found["first"] == []
    share = 100 * (1 - found["agreement"])
    assert checked(home, "--max-drop", share + 1)["failures"] == []
    [failure] = checked(home, "--max-drop", share / 2, code=1)["failures"]
    assert failure == f"{share:.2f} of 100 texts are decided otherwise"


def test_a_label_that_gets_worse_fails_the_gate(home: Path):
    """The second model says yes less often: the recall of yes falls, whatever accuracy does."""
    found = checked(home, "--label-column", "label", "--max-drop", 0.5, code=1)
    assert any(one.startswith("recall of yes falls by ") and one.endswith("(20 rows)") for one in found["failures"])
    said = run_cli(
        *("check", home / "first", home / "second", "--data", home / "task" / "validation.csv"),
        *("--label-column", "label", "--max-drop", 0.5),
    )
    assert said.exit_code == 1 and "FAILS --max-drop 0.5: " in said.stdout and "recall of yes (20)" in said.stdout
    assert "is right): " in said.stdout
    same = run_cli("check", home / "first", home / "first", "--data", home / "task" / "validation.csv", "--max-drop", 0)
    assert same.exit_code == 0 and "Passes --max-drop 0." in same.stdout


def test_a_label_of_few_rows_does_not_decide():
    def result(rows: int) -> Part:
        recall = LabelRecall(label="rare", rows=rows, first=1.0, second=0.5)
        score = {"metric": "accuracy", "value": 0.9, "split": "texts", "examples": 99}
        latency = {"texts": 1, "first_ms": (1, 1), "second_ms": (1, 1), "speedup": 1}
        return CheckResult.model_validate(
            {"rows": 99, "runtimes": ("a", "b"), "first": [score], "second": [score], "largest_difference": 1.0}
            | {"recalls": [recall], "latency": latency}
        )

    assert failures(result(19), 1.0) == ()
    assert failures(result(20), 1.0) == ("recall of rare falls by 50.00 points (20 rows)",)
    assert failures(result(20), None) == ()


def test_numbers_are_compared_as_numbers(home: Path, tmp_path: Path):
    for name in ("first", "second"):
        save_tiny(tmp_path / name, num_labels=1, problem_type="regression", num_hidden_layers=1)
    data = ("--data", home / "task" / "validation.csv", "--label-column", "score", "--json")
    said = run_cli("check", tmp_path / "first", tmp_path / "second", *data)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["first"][0]["metric"] == "pearson" and "agreement" not in found
    unlabelled = ("--data", home / "task" / "validation.csv", "--max-drop", 1)
    assert_refused(run_cli("check", tmp_path / "first", tmp_path / "second", *unlabelled), ["--max-drop needs labels"])


def test_what_cannot_be_compared_is_refused(home: Path, tmp_path: Path):
    data = home / "task" / "validation.csv"
    save_tiny(tmp_path / "other", num_labels=3, num_hidden_layers=1)
    for given, words in (
        (
            (home / "first", tmp_path / "other", "--data", data),
            ["not for the same task", "allowed: classification of no, yes"],
        ),
        ((home / "first", home / "second", "--data", tmp_path / "none.csv"), ["The data file does not exist"]),
        ((home / "first", home / "second", "--data", data, "--text-column", "body"), ["no column 'body'"]),
        ((home / "first", home / "second", "--data", data, "--label-column", "text"), ["label"]),
        ((home / "first", home / "none", "--data", data), ["The model folder does not exist"]),
    ):
        assert_refused(run_cli("check", *given), words)
