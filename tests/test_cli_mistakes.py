"""What bad input gets: one line, exit code 2, and nothing half-written."""

import resource
import shutil
import struct
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model
from sparsebert.models.surgeon import shrink
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("mistakes")
    return SimpleNamespace(folder=folder, model=save_tiny(folder / "model"), data=write_task(folder / "data"))


def write_csv(home: SimpleNamespace, name: str, train: str, validation: str) -> Path:
    folder = home.folder / name
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text(train, encoding="utf-8")
    (folder / "validation.csv").write_text(validation, encoding="utf-8")
    return folder


def damaged(home: SimpleNamespace, name: str) -> Path:
    """A copy of the model, cut short or with one weight that is not a number."""
    folder = home.folder / name
    shutil.copytree(home.model, folder, dirs_exist_ok=True)
    weights = folder / "model.safetensors"
    if name == "cut-short":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif name == "no-header":
        weights.write_bytes(struct.pack("<Q", 10**12) + b"{}")
    else:
        tensors = load_file(weights)
        tensors["bert.encoder.layer.1.output.dense.weight"][3, 4] = torch.nan
        save_file(tensors, weights, metadata={"format": "pt"})
    return folder


GOOD_ROWS = "text,label\ngood,yes\nbad,no\n"
MISTAKES = {
    "no goal": ([], ["no target", "--speedup", "--max-drop"]),
    "unknown task": (["--task", "mrpx", "--speedup", 2], ["Unknown task 'mrpx'", "Did you mean 'mrpc'?"]),
    "unknown model": (["no-such/model", "--speedup", 2], ["no-such/model", "hub cannot be reached"]),
    "no such folder": (["./nowhere", "--speedup", 2], ["The model folder does not exist", "./nowhere"]),
    "unknown column": (
        ["--label-column", "labl", "--speedup", 2],
        ["no column 'labl'", "text, label, score"],
    ),
    "training that is left out": (
        ["--no-finetune", "--set", "finetune.epochs=2", "--speedup", 2],
        ["--no-finetune and --set finetune.epochs=2 contradict each other", "leave one of the two out"],
    ),
    "training that is left out and given": (
        ["--no-finetune", "--set", " finetune={epochs: 2}", "--speedup", 2],
        ["--no-finetune and --set finetune={epochs: 2} contradict each other"],
    ),
    "unknown key": (["--set", "finetune.epoch=1", "--speedup", 2], ["recipe key", "finetune.epoch", "epochs"]),
    "none in words": (
        ["--set", "finetune.evaluate=none", "--speedup", 2],
        ["finetune.evaluate: Input should be", "got none; none is written as null"],
    ),
    "not a setting": (["--set", "seed", "--speedup", 2], ["key=value", "got seed"]),
    "value that is no YAML": (["--set", "task=[1", "--speedup", 2], ["value of a setting", "task=[1"]),
    "seed too large": (["--seed", 2**32, "--speedup", 2], ["seed", "less than 4294967296"]),
    "no such recipe": (["--recipe", "none.yaml", "--speedup", 2], ["recipe file does not exist", "none.yaml"]),
    "unknown criterion": (["--criterion", "magnitud", "--speedup", 2], ["criterion 'magnitud'", "Did you mean 'magn"]),
    "unknown shape": (["--shape", "layer", "--speedup", 2], ["shape", "'search' or 'layers'"]),
    "layers that must stay": (
        ["--shape", "layers", "--set", "search.drop_layers=false", "--speedup", 2],
        ["shape layers leaves out whole layers", "search.drop_layers=false"],
    ),
    "target below 1": (["--speedup", 0.5], ["target speedup must lie between 1 and 1000", "got 0.5"]),
    "latency of zero": (["--latency", "0ms"], ["target latency_ms must lie between 0", "got 0"]),
    "sparsity above 1": (["--sparsity", 1.5], ["target sparsity must lie between 0 and 1", "got 1.5"]),
    "size above 1": (["--size", 2], ["target size must lie between 0 and 1", "got 2"]),
    "same target twice": (["--speedup", 2, "--speedup", "2.0x"], ["same target is given twice", "2x"]),
    "targets and max-drop": (["--speedup", 2, "--max-drop", 1], ["targets or max_drop, not both"]),
    "negative drop": (["--max-drop", -1], ["max_drop", "greater than or equal to 0, got -1"]),
    "endless training": (["--set", "dense.epochs=.inf", "--speedup", 2], ["not finite, inf", "got dense.epochs=.inf"]),
    "more threads than machines have": (["--threads", 100_000, "--speedup", 2], ["threads", "1024", "got 100000"]),
    "too long a setting": (["--speedup", 2, "--length", 65], ["no positions for that length", "got 65", "1 to 64"]),
    "more texts than memory": (["--speedup", 2, "--batch", 10**8], ["more input than fits", "16,777,216 tokens"]),
    "no such data": (["--data", "nowhere.csv", "--speedup", 2], ["data path does not exist", "nowhere.csv"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_input_gets_one_line_and_writes_nothing(home, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    given, expected = MISTAKES[mistake]
    arguments = [str(part) for part in given]
    if not (arguments and not arguments[0].startswith("--")):
        arguments.insert(0, str(home.model))
    if "--task" not in arguments:
        arguments += ["--task", "mine"] + ([] if "--data" in arguments else ["--data", str(home.data)])
    assert_refused(run_cli("compress", *arguments, "-o", tmp_path / "out"), expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        (
            GOOD_ROWS,
            "text,label\ngood,maybe\n",
            ["validation.csv", "row 1", "label set", "'maybe'", "no, yes"],
        ),
        (GOOD_ROWS, "text,label\n", ["no rows", "validation.csv"]),
        ("text,label\ngood,yes\n,no\n", GOOD_ROWS, ["train.csv", "row 2", "text is empty"]),
        ("text,label\ngood,yes\nbad,yes\n", GOOD_ROWS, ["same label", "'yes'"]),
    ],
)
def test_bad_data_gets_one_line_and_writes_nothing(home, tmp_path, train, validation, expected):
    data = write_csv(home, "bad-data", train, validation)
    out = tmp_path / "out"
    said = run_cli("compress", home.model, "--task", "mine", "--data", data, "--sparsity", 0.5, "-o", out)
    assert_refused(said, expected)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cut-short", ["model.safetensors is damaged or cut short", "download it again"]),
        ("no-header", ["model.safetensors is damaged or cut short"]),
        ("nan", ["NaN or an infinite number", "bert.encoder.layer.1.output.dense.weight"]),
    ],
)
def test_damaged_weights_get_one_line_and_write_nothing(home, tmp_path, name, expected):
    model, out = damaged(home, name), tmp_path / "out"
    said = run_cli("compress", model, "--task", "mine", "--data", home.data, "--sparsity", 0.5, "-o", out)
    assert_refused(said, expected)
    assert not out.exists()
    assert_refused(run_cli("info", model), expected)


def test_a_model_of_uneven_layers_is_refused_before_anything_is_written(home, tmp_path):
    model = load_model(home.model)
    heads = layout_of(model).groups[0]
    said, out = compressed_again(home, model, {heads.name: torch.arange(heads.units) < 1}, tmp_path)
    assert_refused(said, ["whose layers are alike", "got 1 heads and "])
    assert not out.exists()


def compressed_again(home, model, keep: dict[str, torch.Tensor], folder: Path) -> tuple[Any, Path]:
    """What `compress` says to a model that has been cut already, and the folder it was to write."""
    cut, out = folder / "cut", folder / "out"
    shrink(model, keep).save_pretrained(cut)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(home.model / name, cut)
    return run_cli("compress", cut, "--task", "mine", "--data", home.data, "--sparsity", 0.5, "-o", out), out


def test_a_model_without_neurons_is_refused_before_anything_is_written(home, tmp_path):
    model = load_model(home.model)
    keep = {group.name: torch.zeros(group.units, dtype=torch.bool) for group in layout_of(model).groups[1:2]}
    said, out = compressed_again(home, model, keep, tmp_path)
    assert_refused(said, ["heads and neurons in every layer", "got layers without a head or a neuron: 0"])
    assert not out.exists()


def test_folder_of_the_user_is_left_alone(home, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    said = run_cli("compress", home.model, "--task", "mine", "--data", home.data, "-o", tmp_path, "--sparsity", 0.5)
    assert_refused(said, ["not empty and not a run", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


OTHER_MISTAKES = {
    "bench runtime": (["bench", "MODEL", "--runtime", "eagre"], ["Unknown runtime 'eagre'", "Did you mean 'eager'?"]),
    "bench length": (["bench", "MODEL", "--length", "65"], ["no positions for that length", "1 to 64"]),
    "bench batch": (["bench", "MODEL", "--batch", "0"], ["at least 1"]),
    "bench nothing there": (["bench", "./nowhere"], ["model folder does not exist"]),
    "report nothing there": (["report", "nowhere"], ["No record found", "nowhere"]),
    "predict without text": (["predict", "MODEL"], ["There is no text"]),
    "predict both": (["predict", "MODEL", "a", "--file", "b.txt"], ["texts or --file, not both"]),
    "predict no file": (["predict", "MODEL", "--file", "b.txt"], ["No such file", "b.txt"]),
    "predict a column of nothing": (["predict", "MODEL", "a", "--text-column", "b"], ["--text-column needs --file"]),
    "predict too short": (["predict", "MODEL", "a", "--max-length", "2"], ["too short", "4 to 64"]),
    "predict without a head": (["predict", "BASE", "a"], ["not fine-tuned"]),
    "info nothing there": (["info", "./nowhere"], ["model folder does not exist"]),
}


@pytest.mark.parametrize("mistake", OTHER_MISTAKES)
def test_bad_input_of_the_other_commands(home, tmp_path, monkeypatch, mistake):
    given, expected = OTHER_MISTAKES[mistake]
    if "BASE" in given:
        save_tiny(home.folder / "base", "base")
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": home.model, "BASE": home.folder / "base"}
    assert_refused(run_cli(*(places.get(part, part) for part in given)), expected)
    assert not list(tmp_path.iterdir())


@contextmanager
def full_disk(after_bytes: int):
    """Refuse to write files beyond a size: the errors are those of a disk that fills up, apart from their number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("after_bytes", [50_000, 150_000])
def test_disk_that_fills_up_gets_one_line_and_leaves_no_half_model(home, tmp_path, after_bytes):
    """First the weights do not fit (about 100 kB), then the checkpoint's optimiser state (about 200 kB)."""
    base, out = save_tiny(home.folder / "base", "base"), tmp_path / "out"
    arguments = ("compress", base, "--task", "mine", "--data", home.data, "--sparsity", 0.5, "-o", out, *QUICK)
    with full_disk(after_bytes):
        said = run_cli(*arguments)
    assert said.exit_code == 2
    line = said.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and ("written" in line or "too large" in line), line
    assert not (out / "dense").exists() and not list(out.glob(".dense*"))
    assert "Traceback" not in said.stderr
