"""Any number of labels a text: read from every format, trained and cut from end to end, and answered by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification

from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.recipe.schema import Columns
from sparsebert.records import Record, read_record
from sparsebert.tasks import bootstrap
from sparsebert.tasks.metrics import score, score_with_reasons
from sparsebert.tasks.multilabel import MULTILABEL
from tiny_run import QUICK, run_cli, save_tiny

COLUMNS = Columns(kind="multilabel")
LABELS = [["food", "price"], [], ["price"], ["staff", "price"]]
KEYWORDS = {"good": "praise", "w1": "one", "w2": "two"}


def write_csv(folder: Path, cells: list[str], delimiter: str = ",") -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("train", "validation"):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["text", "label"])
            writer.writerows((f"w{row} {name}", cell) for row, cell in enumerate(cells))
    return folder


@pytest.mark.parametrize("delimiter", [",", "|", "\t"])
def test_a_cell_of_csv_is_divided_by_bars(delimiter: str, tmp_path: Path):
    task = load_task("mine", str(write_csv(tmp_path, ["|".join(one) for one in LABELS], delimiter)), COLUMNS)
    assert task.spec.labels == ("food", "price", "staff") and task.spec.metrics == ("micro_f1", "macro_f1")
    assert task.train["label"][:] == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert "1 of 4 rows of train.csv have an empty label: these texts have no label" in task.notes


def test_jsonl_holds_lists(tmp_path: Path):
    lines = [json.dumps({"text": f"w{row}", "label": labels}) for row, labels in enumerate([*LABELS, [" price "]])]
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = load_task("mine", str(tmp_path), COLUMNS)
    assert task.train["label"][:] == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_parquet_may_declare_names(tmp_path: Path):
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["staff", "food", "unused"]))})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [[1, 0], [], [0]]}, features=features)
    for name in ("train", "validation"):
        rows.to_parquet(str(tmp_path / f"{name}.parquet"))
    task = load_task("mine", str(tmp_path), COLUMNS)
    assert task.spec.labels == ("staff", "food", "unused")
    assert task.train["label"][:] == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["a", "a|", "b"], "train.csv, column 'label', row 2: nothing stands on one side of a '|'; got 'a|'"),
        (["a", "b|NA"], "row 2: the label reads as a missing value; got 'NA'"),
        (["a|b", "b|a"], "every row has the same labels, so there is nothing to learn; got a, b"),
        (["", ""], "nothing to learn; got none"),
    ],
)
def test_cells_that_cannot_be_read_are_refused(cells: list[str], words: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        load_task("mine", str(write_csv(tmp_path, cells)), COLUMNS)
    assert words in str(caught.value)


def test_values_that_are_no_lists_and_other_labels_are_refused():
    with pytest.raises(UserError, match=r"labels, row 1: labels must be a list; got str; write \[\"food\""):
        MULTILABEL.labels(["food|price"], ("food", "price"), "labels")
    with pytest.raises(UserError, match="labels, row 2: not in the label set; got 'taste'; allowed: food, price"):
        MULTILABEL.labels([["food"], ["taste"]], ("food", "price"), "labels")
    with pytest.raises(UserError, match=r"row 1: the label is missing; write \[\] for a text without labels"):
        MULTILABEL.label_names([None], "labels")


def test_the_rarest_label_decides_what_is_held_out_together():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=float)
    assert MULTILABEL.strata(labels).tolist() == [1, 0, 2, 3, 1]


def test_metrics_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 4)) < 0.3).astype(float)
    outputs = labels - 0.5 + rng.normal(0, 0.7, labels.shape)
    for average in ("micro", "macro"):
        expected = f1_score(labels, outputs > 0, average=average)
        assert score([f"{average}_f1"], outputs, labels)[f"{average}_f1"] == pytest.approx(expected)
        whole = bootstrap.resampled_scores(f"{average}_f1", outputs, labels, 20)
        monkeypatch.setattr(bootstrap, "AT_ONCE", 150)
        assert bootstrap.resampled_scores(f"{average}_f1", outputs, labels, 20) == pytest.approx(whole)
    nothing = np.zeros((3, 2))
    assert score_with_reasons(["micro_f1"], nothing - 1, nothing)[1] == {
        "micro_f1": "no text has a label, and none is given"
    }
    # The second label has no text and is never given: it says nothing of the model.
    one = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert score(["macro_f1"], one - 0.5, one) == {"macro_f1": 1.0}


def test_the_constant_answer_has_the_highest_micro_f1_of_all():
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]], dtype=float)
    constant = MULTILABEL.constant(labels, ("a", "b", "c"))
    scores = {}
    for number in range(1, 8):
        given = np.array([number >> place & 1 for place in range(3)])
        scores[number] = f1_score(labels, np.tile(given, (5, 1)), average="micro")
    # Both frequent labels: 6 right of 10 given, of 7 that are true.
    assert max(scores.values()) == scores[0b011] == pytest.approx(12 / 17)
    assert constant.outputs.tolist() == [1.0, 1.0, -1.0] and constant.said == 'always saying "a, b"'


def test_divergence_and_distillation_by_hand():
    teacher, student = np.array([[0.0, np.log(3)]]), np.array([[0.0, 0.0]])
    # A label of 3/4 against one of 1/2; the other is equal.
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert MULTILABEL.divergence(teacher, student) == pytest.approx(expected)
    softened = 1 / (1 + np.exp(-np.log(3) / 2))
    loss = MULTILABEL.distillation(torch.tensor(2 * student + 2.0), torch.tensor(teacher), 2.0)
    entropy = [-t * np.log(1 / (1 + np.exp(-1))) - (1 - t) * np.log(1 / (1 + np.exp(1))) for t in (0.5, softened)]
    assert float(loss) == pytest.approx(4 * np.mean(entropy))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and a task that keywords decide."""
    folder = tmp_path_factory.mktemp("multilabel")
    save_tiny(folder / "model", "base")
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for name, count in (("train", 64), ("validation", 40)):
        with (folder / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for _ in range(count):
                words = [word for word in KEYWORDS if rng.random() < 0.5]
                more = [f"w{number}" for number in rng.integers(3, 50, 4)]
                writer.writerow([" ".join([*words, *more]), "|".join(KEYWORDS[word] for word in words)])
    return folder


def run(home: Path, command: str, name: str, *arguments: object) -> Record:
    given = (command, home / "model", "--task", "mine", "--data", home / "data", "-o", home / name)
    said = run_cli(*given, "--set", "columns.kind=multilabel", "--set", "measure.rounds=3", *arguments)
    assert said.exit_code == 0, said.output
    return read_record(home / name / "record.json")


def test_compress_from_end_to_end_and_predict_with_what_it_made(home: Path):
    record = run(home, "compress", "small", *QUICK, "--sparsity", 0.5, "--set", "finetune.max_steps=4")
    assert record.main_metric == "micro_f1" and [model.name for model in record.models] == ["dense", "0.5-sparsity"]
    for result in record.models:
        assert [one.metric for one in result.scores] == ["micro_f1", "macro_f1"] and result.decisions is None
        assert all(one.baseline is not None and one.low is not None for one in result.scores)
    folder = home / "small" / record.models[1].folder
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    assert model.config.problem_type == "multi_label_classification"
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(folder), type(model))
    said = run_cli("predict", folder, "good w1", "--json")
    assert said.exit_code == 0, said.output
    (row,) = json.loads(said.stdout)["predictions"]
    with torch.no_grad():
        expected = torch.sigmoid(model(**tokenizer("good w1", return_tensors="pt")).logits[0]).tolist()
    names = sorted(KEYWORDS.values())
    assert row["probabilities"] == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-6)
    assert row["labels"] == [name for name in names if row["probabilities"][name] > 0.5]
    run_cli("predict", folder, "good w1", "-o", home / "answers.csv")
    with (home / "answers.csv").open(encoding="utf-8", newline="") as file:
        (flat,) = csv.DictReader(file)
    assert flat["labels"] == "|".join(row["labels"]) and "probability_praise" in flat


def test_train_learns_labels_and_starts_from_a_model_of_this_kind(home: Path):
    steps = ("--set", "phases.0.training.max_steps=60", "--set", "phases.0.training.learning_rate=3e-3")
    dense = ("--set", "baseline=true", "--set", "dense.max_steps=6")
    record = run(home, "train", "sparse", "--recipe", "magnitude-cubic", *dense, *steps)
    sparse = {one.metric: one for one in record.models[-1].scores}
    assert sparse["micro_f1"].value > 0.6
    again = run_cli("predict", home / "sparse" / record.models[-1].folder, "good w1 w5")
    assert again.exit_code == 0 and "Labels" in again.stdout
    teacher = home / "sparse" / "dense"
    arguments = ("--set", f"phases.0.teacher={teacher}", "--set", "phases.0.distill.hidden=0", *steps)
    taught = run(home, "train", "taught", "--recipe", "magnitude-cubic", *arguments)
    assert taught.models[-1].scores[0].metric == "micro_f1"
