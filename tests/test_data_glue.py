"""Tasks of the table: folders in the layout of the hub, subsets, and what a wrong folder or a dead hub says."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsebert.data.glue import hub_splits
from sparsebert.data.load import load_task
from sparsebert.data.rows import standard_rows
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns
from sparsebert.tasks.table import TaskSpec, task_names, task_spec

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write_split(folder: Path, spec: TaskSpec, split: str, rows: int = 6, **replaced: list) -> None:
    """A parquet file as on the hub: text columns, `label`, `idx`."""
    values = {name: [f"{split} {name} {row}" for row in range(rows)] for name in spec.columns}
    classes = len(spec.labels)
    values["label"] = [row % classes if classes else row / 2 for row in range(rows)]
    values["idx"] = list(range(rows))
    home = folder / spec.name
    home.mkdir(exist_ok=True)
    pq.write_table(pa.table(values | replaced), home / f"{split}.parquet")


@pytest.fixture
def sst2(tmp_path):
    """A folder with a good sst2."""
    for split in ("train", "validation"):
        write_split(tmp_path, task_spec("sst2"), split)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in task_names() if task_spec(name).source])
def test_every_glue_task_loads_from_a_folder(tmp_path, name):
    spec = task_spec(name)
    for split in ("train", *spec.validation_splits):
        write_split(tmp_path, spec, split)
    task = load_task(name, str(tmp_path))
    pair = len(spec.columns) == 2
    expected = {"text_a": f"train {spec.columns[0]} 1"} | ({"text_b": f"train {spec.columns[1]} 1"} if pair else {})
    assert task.train[1] == expected | {"label": 1 if spec.labels else 0.5}
    assert type(task.train[0]["label"]) is (int if spec.labels else float)
    assert task.validation[0]["text_a"] == f"{spec.validation_splits[0]} {spec.columns[0]} 0"
    assert (task.validation_name, task.subset, task.notes) == (spec.validation_splits[0], False, ())


def test_mnli_mismatched_is_kept_apart(tmp_path):
    spec = task_spec("mnli")
    for split, rows in (("train", 9), ("validation_matched", 6), ("validation_mismatched", 3)):
        write_split(tmp_path, spec, split, rows)
    task = load_task("mnli", str(tmp_path))
    assert len(task.validation) == 6
    assert {name: len(rows) for name, rows in task.more_validation.items()} == {"validation_mismatched": 3}


def test_subsets_and_missing_splits_are_said(tmp_path):
    write_split(tmp_path, task_spec("mnli"), "train_subset")
    write_split(tmp_path, task_spec("mnli"), "validation_matched_subset")
    task = load_task("mnli", str(tmp_path))
    assert task.subset
    assert task.validation_name == "validation_matched_subset"
    assert task.more_validation == {}
    assert len(task.notes) == 3
    assert "train is train_subset, not the official split" in task.notes[0]
    assert "validation_mismatched is missing" in task.notes[2]


def test_the_official_split_wins_over_a_subset(sst2):
    write_split(sst2, task_spec("sst2"), "train_subset", rows=2)
    task = load_task("sst2", str(sst2))
    assert len(task.train) == 6
    assert not task.subset


def test_train_examples_are_a_seeded_choice_of_the_train_rows_only(sst2):
    write_split(sst2, task_spec("sst2"), "train", rows=50)
    chosen = [load_task("sst2", str(sst2), seed=seed, train_examples=10).train["text_a"][:] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    assert len(set(chosen[0])) == 10
    task = load_task("sst2", str(sst2), seed=0, train_examples=10)
    assert len(task.validation) == 6
    assert task.notes == ("train: 10 of 50 rows, after a shuffle with seed 0",)
    assert len(load_task("sst2", str(sst2), train_examples=99).train) == 50


def test_a_benchmark_pair_may_have_one_empty_side(tmp_path):
    spec = task_spec("qqp")
    write_split(tmp_path, spec, "train", question2=["", "b", "c", "d", "e", "f"])
    write_split(tmp_path, spec, "validation")
    assert load_task("qqp", str(tmp_path)).train[0]["text_b"] == ""


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"label": [0, 1, 0, -1, 0, 1]}, "sst2 train, column 'label', row 4.*got '-1'.*-1 marks a row without a label"),
        (
            {"label": [0, 1, 2, 1, 0, 1]},
            "row 3: not in the label set; got '2'; allowed: negative, positive \\(0 to 1\\)",
        ),
        ({"label": [0, 1, 0, 1, 0, None]}, "row 6: the label is missing"),
        ({"sentence": ["a", "b", None, "d", "e", "f"]}, "column 'sentence', row 3: the text must be a string"),
    ],
)
def test_bad_rows(sst2, replaced, message):
    write_split(sst2, task_spec("sst2"), "train", **replaced)
    with pytest.raises(UserError, match=message):
        load_task("sst2", str(sst2))


def test_a_file_with_other_columns(sst2):
    pq.write_table(pa.table({"sentences": ["a"], "label": [1]}), sst2 / "sst2" / "train.parquet")
    with pytest.raises(UserError, match=r"no column 'sentence'; allowed: sentences, label; did you mean 'sentences'"):
        load_task("sst2", str(sst2))


def test_an_empty_split(sst2):
    write_split(sst2, task_spec("sst2"), "validation", rows=0)
    with pytest.raises(UserError, match=r"no rows"):
        load_task("sst2", str(sst2))


def test_a_truncated_file(sst2):
    file = sst2 / "sst2" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cannot be read as parquet.*train.parquet"):
        load_task("sst2", str(sst2))


def test_folders_that_lack_something(sst2, tmp_path):
    with pytest.raises(UserError, match=r"No folder 'rte'.*DIR/rte/train.parquet and DIR/rte/validation.parquet"):
        load_task("rte", str(sst2))
    (tmp_path / "sst2" / "validation.parquet").unlink()
    with pytest.raises(UserError, match=r"No validation.parquet or validation_subset.parquet for task 'sst2'"):
        load_task("sst2", str(sst2))
    with pytest.raises(UserError, match=r"does not exist"):
        load_task("sst2", str(tmp_path / "nowhere"))


def test_a_table_task_takes_neither_a_file_nor_columns(sst2):
    with pytest.raises(UserError, match=r"takes a folder of tasks, not a file.*--task custom"):
        load_task("sst2", str(sst2 / "sst2" / "train.parquet"))
    with pytest.raises(UserError, match=r"columns of task 'sst2' are fixed"):
        load_task("sst2", str(sst2), Columns(text=("sentence",)))


@pytest.mark.process
def test_without_a_hub_the_error_comes_at_once_and_says_what_to_do(tmp_path):
    """In a process of its own, because the hub's libraries read the variable when they are imported."""
    code = "from sparsebert.data.load import load_task; load_task('rte', None)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 20
    last = ran.stderr.strip().splitlines()[-1]
    assert "UserError: Cannot load task 'rte' from the Hugging Face hub" in last
    assert "--data DIR (it must hold DIR/rte/train.parquet and DIR/rte/validation.parquet)" in last


def test_a_hub_that_does_not_answer_is_given_up_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"Cannot load task 'rte'.*URLError"):
        load_task("rte", None)
    assert time.monotonic() - began < 6


def test_splits_as_the_hub_gives_them(tmp_path, monkeypatch):
    """A local folder is to `datasets` what a name on the hub is; nobody needs to answer then."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = replace(task_spec("rte"), source=(str(tmp_path / "rte"),))
    for split in ("train", "validation"):
        write_split(tmp_path, spec, split)
    splits = hub_splits(spec)
    rows = standard_rows(splits["validation"].rows, spec, "rte")
    assert list(splits) == ["train", "validation"]
    assert rows[1] == {"text_a": "validation sentence1 1", "text_b": "validation sentence2 1", "label": 1}


OFFICIAL = {
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "mrpc": (3668, 408),
    "stsb": (5749, 1500),
    "rte": (2490, 277),
    "wnli": (635, 71),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", list(OFFICIAL))
def test_real_official_splits(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name}: no real data beside the checkout")
    task = load_task(name, str(SHARED))
    assert (len(task.train), len(task.validation)) == OFFICIAL[name]
    assert not task.subset


@pytest.mark.shared
@pytest.mark.parametrize("name", ["qnli", "mnli", "qqp"])
def test_real_subsets(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name}: no real data beside the checkout")
    task = load_task(name, str(SHARED), train_examples=100)
    assert task.subset
    assert len(task.train) == 100
