"""Labels in several columns of 0 and 1, one a label, from every format; and runs of models with thresholds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from sparsebert import Predictor, UserError
from sparsebert.data.load import load_task
from sparsebert.deployment.manifest import read_manifest
from sparsebert.models.load import load_config
from sparsebert.models.thresholds import thresholds_of
from sparsebert.recipe.schema import Columns
from sparsebert.records import Record, read_record
from tiny_run import QUICK, assert_refused, run_cli, save_tiny

COLUMNS = Columns(kind="multilabel", label=("price", "food"))
ROWS = [("a", "1", "0"), ("b", "0", "0"), ("c", "0", "1"), ("d", "1", "1")]
EXPECTED = [[1, 0], [0, 0], [0, 1], [1, 1]]
OPTIONS = ("--kind", "multilabel", "--label-column", "one", "--label-column", "two", "--label-column", "rare")


def csv_of(folder: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "price", "food")) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("train", "validation"):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *((f"{text} {name}", *cells) for text, *cells in rows)])
    return folder


def test_csv_holds_text(tmp_path: Path):
    rows = [("a", " 1", "0.0"), ("b", "0", "False"), ("c", "0", "TRUE"), ("d", "1.0", "1")]
    task = load_task("mine", str(csv_of(tmp_path, rows)), COLUMNS)
    assert task.spec.labels == ("price", "food") and task.train["label"][:] == EXPECTED
    assert task.train.column_names == ["text_a", "label"]


@pytest.mark.parametrize("cell", [int, float, lambda text: text == "1"])
def test_parquet_and_jsonl_hold_numbers_or_booleans(cell: Any, tmp_path: Path):
    rows = [{"text": text, "price": cell(one), "food": cell(other)} for text, one, other in ROWS]
    for name in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    lines = tmp_path / "lines"
    lines.mkdir()
    for name in ("train", "validation"):
        (lines / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for folder in (tmp_path, lines):
        assert load_task("mine", str(folder), COLUMNS).train["label"][:] == EXPECTED


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*ROWS, ("e", "2", "0")], "train.csv, column 'price', row 5: not 0 or 1; got '2'; allowed: 0 or 1"),
        ([*ROWS, ("e", "1", "")], "train.csv, column 'food', row 5: not 0 or 1; got nothing"),
        ([*ROWS, ("e", "yes", "0")], "not 0 or 1; got 'yes'"),
        (
            [(text, "0", "0") for text, *_ in ROWS],
            "every row has the same labels, so there is nothing to learn; got none",
        ),
    ],
)
def test_other_cells_and_columns_without_a_label_are_refused(rows: list[tuple[str, ...]], words: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        load_task("mine", str(csv_of(tmp_path, rows)), COLUMNS)
    assert words in str(caught.value)


def test_a_column_that_is_missing_or_named_twice_or_of_another_kind_is_refused(tmp_path: Path):
    data = str(csv_of(tmp_path, ROWS))
    for columns, words in (
        (
            Columns(kind="multilabel", label=("price", "foot")),
            "train.csv has no column 'foot'; allowed: text, price, food",
        ),
        (Columns(kind="multilabel", label=("price", "price")), "Each label column is named once; got price, price"),
        (Columns(kind="multilabel", label=()), "Each label column is named once; got none"),
        (Columns(label=("price", "food")), "Only labels of kind multilabel stand in several columns; got price, food"),
    ):
        with pytest.raises(UserError) as caught:
            load_task("mine", data, columns)
        assert words in str(caught.value)
    assert load_task("mine", data, Columns(label=("food",))).spec.labels == ("0", "1")


def test_a_label_that_no_row_has_is_said(tmp_path: Path):
    rows = [(text, one, "0") for text, one, _ in ROWS]
    task = load_task("mine", str(csv_of(tmp_path, rows)), COLUMNS)
    assert task.spec.labels == ("price", "food")
    assert "no row of train.csv has the label food: a model cannot learn to give it" in task.notes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and texts whose keywords decide labels, one of which is rare."""
    folder = tmp_path_factory.mktemp("columns")
    save_tiny(folder / "model", "base")
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for name, count in (("train", 300), ("validation", 120)):
        with (folder / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "one", "two", "rare"])
            for _ in range(count):
                has = rng.random(3) < [0.5, 0.3, 0.04]
                words = [word for word, one in zip(("good", "w1", "w2"), has, strict=True) if one]
                more = [f"w{number}" for number in rng.integers(3, 50, 4)]
                writer.writerow([" ".join([*words, *more]), *has.astype(int)])
    return folder


@pytest.fixture(scope="module")
def compressed(home: Path) -> Record:
    more = ("--sparsity", 0.5, "--set", "dense.max_steps=20", "--set", "finetune.max_steps=6", *QUICK[:-2])
    said = run_cli(
        "compress", home / "model", "--task", "mine", "--data", home / "data", "-o", home / "small", *OPTIONS, *more
    )
    assert said.exit_code == 0, said.output
    return read_record(home / "small" / "record.json")


def truth(home: Path) -> tuple[list[str], np.ndarray]:
    with (home / "data" / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array(
        [[int(row[name]) for name in ("one", "two", "rare")] for row in rows]
    )


def test_every_model_of_a_run_has_thresholds_and_is_scored_at_them(home: Path, compressed: Record):
    texts, labels = truth(home)
    (note,) = [note for note in compressed.notes if note.startswith("from which probability")]
    assert "on 30 train rows that no training here sees" in note and "rare (" in note
    assert {model.training.examples for model in compressed.models if model.training} == {270}
    for model in compressed.models:
        folder = home / "small" / model.folder
        found = thresholds_of(load_config(folder))
        assert model.thresholds is not None and model.thresholds.rows == 30
        assert model.thresholds.values == dict(zip(("one", "two", "rare"), found, strict=True)) and set(found) != {0.5}
        told = Predictor(folder)(texts, top_k=None)
        given = [{one["label"] for one in text if one["given"]} for text in told]
        for text in told:
            assert {one["label"] for one in text if one["given"]} == {
                one["label"] for one in text if one["score"] > model.thresholds.values[one["label"]]
            }
        sets = np.array([[name in one for name in ("one", "two", "rare")] for one in given])
        for score in model.scores:
            average = score.metric.removesuffix("_f1")
            # A label that is never given and that no text has would count for nothing; here all texts have some.
            assert score.value == pytest.approx(f1_score(labels, sets, average=average, zero_division=np.nan))


def test_card_and_its_code_apply_the_thresholds(home: Path, compressed: Record):
    folder = home / "small" / compressed.models[1].folder
    card = (folder / "README.md").read_text("utf-8")
    assert "Chosen on 30 train rows that no training saw." in card and "| Given above |" in card
    code = next(block.partition("```")[0] for block in card.split("```python\n")[1:] if "thresholds" in block)
    said: list[Any] = []
    text = "good w1 w5"
    exec(code.replace("path/to/this/folder", str(folder)).replace("A sentence.", text), {"print": said.append})
    ((answers, _),) = Predictor(folder).answers([text])
    assert sorted(said[0]) == sorted(answers[0]["labels"])


def test_programs_and_packed_files_keep_them_and_check_decides_by_them(home: Path, compressed: Record):
    pytest.importorskip("onnxruntime")
    folder, programs, packed = home / "small" / "0.5-sparsity", home / "programs", home / "packed"
    data = (
        "--data",
        home / "data" / "validation.csv",
        "--label-column",
        "one",
        "--label-column",
        "two",
        "--label-column",
        "rare",
    )
    said = run_cli("export", folder, "-o", programs, "--task", "mine", "--data", home / "data", *OPTIONS)
    assert said.exit_code == 0, said.output
    manifest, expected = read_manifest(programs), thresholds_of(load_config(folder))
    assert manifest.thresholds == expected and manifest.programs[0].agreement == 1.0
    assert [one.value for one in manifest.scores] == pytest.approx([one.value for one in compressed.models[1].scores])
    assert run_cli("pack", folder, "-o", packed).exit_code == 0
    assert thresholds_of(load_config(packed)) == expected
    said = run_cli("check", folder, programs, *data, "--json")
    found = json.loads(said.stdout)
    assert found["agreement"] == 1.0 and found["first"][0]["value"] == pytest.approx(
        compressed.models[1].scores[0].value
    )
    # Another threshold alone changes what is decided.
    file = programs / "deployment.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"thresholds": [0.001, 0.001, 0.001]}), "utf-8")
    found = json.loads(run_cli("check", folder, programs, *data, "--json").stdout)
    assert found["agreement"] < 1.0 and found["flips"][0]["own"] == "one, two, rare"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"thresholds": [0.5]}), "utf-8")
    assert_refused(run_cli("predict", programs, "good"), [f"The thresholds in {file} are damaged; got 1 of them"])


def test_without_rows_to_choose_by_models_keep_what_they_have(home: Path, compressed: Record):
    folder = home / "small" / "0.5-sparsity"
    given = (
        "--task",
        "mine",
        "--data",
        home / "data",
        *OPTIONS,
        "--set",
        "training.max_steps=2",
        "--set",
        "measure.rounds=3",
    )
    said = run_cli("finetune", folder, "-o", home / "kept", *given, "--set", "threshold_rows=0")
    assert said.exit_code == 0, said.output
    (model,) = read_record(home / "kept" / "record.json").models
    assert model.thresholds is not None and model.thresholds.rows is None
    assert thresholds_of(load_config(home / "kept" / model.folder)) == thresholds_of(load_config(folder))
    said = run_cli("finetune", home / "model", "-o", home / "half", *given, "--set", "threshold_rows=0.02")
    assert said.exit_code == 0, said.output
    record = read_record(home / "half" / "record.json")
    assert record.models[0].thresholds is None and record.inputs is not None
    assert record.inputs.data["train"].rows == 300 and "threshold_rows" not in record.inputs.data
    assert any(note.startswith("labels are given from a probability of 0.5 on: ") for note in record.notes)
