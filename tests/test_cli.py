"""The command line: what it prints, what it refuses, and how it says so."""

import errno
import json
import resource
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from sparsebert.commands.compress import default_folder, targets
from sparsebert.commands.settings import recipe_of
from sparsebert.data.tasks import task_names
from sparsebert.errors import UserError
from sparsebert.guard import guard
from sparsebert.records import read_record
from sparsebert.registry import names
from tiny_run import QUICK, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("cli")
    return SimpleNamespace(folder=folder, model=save_tiny(folder / "model"), data=write_task(folder / "data"))


def compress_arguments(home: SimpleNamespace, out: Path) -> list[object]:
    return ["compress", home.model, "--task", "mine", "--data", home.data, "--no-finetune", "-o", out, *QUICK]


@pytest.fixture(scope="module")
def finished(home) -> SimpleNamespace:
    """One finished run, and what it printed."""
    out = home.folder / "run"
    return SimpleNamespace(folder=out, said=run_cli(*compress_arguments(home, out), "--sparsity", 0.5))


# Help


def test_help_imports_neither_torch_nor_pydantic():
    code = (
        "import sys\nfrom sparsebert.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pydantic', 'numpy', 'matplotlib', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sparsebert compress" in done.stdout and "--speedup" in done.stdout


def test_top_level_help_is_short_and_names_every_command():
    said = run_cli("--help").stdout
    assert len(said.splitlines()) < 40
    for command in ("compress", "bench", "report", "predict", "info", "tasks", "models"):
        assert command in said


@pytest.mark.parametrize("arguments", [["squeeze"], ["compress", "--speed", "2"], ["compress", "--latency", "soon"]])
def test_wrong_usage_is_exit_code_2(arguments):
    assert run_cli(*arguments).exit_code == 2


# Options to a recipe


def test_settings_win_over_options_and_options_over_the_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("task: sst2\nseed: 1\nmax_length: 32\nmeasure: {batch: 4, length: 9}\nfinetune: {max_steps: 5}\n")
    options = {"seed": 2, "max_length": 64, "measure.batch": 8, "data": None, "columns.text": ["à: b", "#c"]}
    recipe = recipe_of(file, options, ["max_length=16"])
    assert (recipe.task, recipe.seed, recipe.max_length) == ("sst2", 2, 16)
    assert (recipe.measure.batch, recipe.measure.length) == (8, 9)
    assert recipe.columns.text == ("à: b", "#c")
    assert recipe.finetune is not None and recipe.finetune.max_steps == 5
    assert recipe_of(file, options, [], cleared=("finetune",)).finetune is None


def test_targets_are_sorted_from_weak_to_strong():
    goals = {"speedup": [4.0, 2.0], "latency_ms": [3.0, 8.0], "size": [0.2, 0.5], "sparsity": None}
    found = [(target["kind"], target["value"]) for target in targets(goals) or []]
    assert found == [("speedup", 2), ("speedup", 4), ("latency_ms", 8), ("latency_ms", 3), ("size", 0.5), ("size", 0.2)]
    assert targets({"speedup": []}) is None


def test_default_folder_names_model_task_and_recipe():
    recipe = recipe_of(None, {"model": "someone/tiny-bert", "task": "rte"}, [])
    assert default_folder(recipe) == Path("runs") / f"tiny-bert-rte-{recipe.hash}"
    assert default_folder(recipe_of(None, {"seed": 1}, [])) != default_folder(recipe_of(None, {"seed": 2}, []))


# What a run prints


def test_compress_prints_table_verdict_notes_and_report(finished):
    assert finished.said.exit_code == 0, finished.said.output
    out = finished.said.stdout
    assert "0.5-sparsity" in out and "Accuracy" in out and "encoder" in out
    assert "0.5-sparsity: encoder" in out or "0.5-sparsity: 1" in out
    assert "Note: validation rows are those of validation.csv" in out
    assert out.strip().splitlines()[-1] == f"Report: {finished.folder / 'report.html'}"
    assert "Warning" not in finished.said.output


def test_compress_in_json_and_a_second_call_keeps_what_is_finished(home, finished):
    files = sorted(finished.folder.rglob("*.safetensors")) + sorted(finished.folder.glob("work/**/*.json"))
    before = {file: file.stat().st_mtime_ns for file in files}
    said = run_cli(*compress_arguments(home, finished.folder), "--sparsity", 0.5, "--json")
    found = json.loads(said.stdout)
    assert [row["name"] for row in found["models"]] == ["dense", "0.5-sparsity"]
    assert found["report"] == str(finished.folder / "report.html") and found["notes"]
    assert before and before == {file: file.stat().st_mtime_ns for file in files}


def test_report_of_two_runs(home, finished, tmp_path):
    page = tmp_path / "out" / "both.html"
    said = run_cli("report", finished.folder, finished.folder / "record.json", "-o", page)
    assert said.exit_code == 0, said.output
    assert said.stdout.strip().splitlines()[-1] == f"Report: {page}"
    assert "2 runs of seed 0" in page.read_text(encoding="utf-8")


def test_info_tells_shapes_sparsities_and_where_parameters_are(finished):
    folder = finished.folder / "0.5-sparsity"
    found = json.loads(run_cli("info", folder, "--json").stdout)
    result = read_record(finished.folder).models[1]
    shape = result.shape
    kept = [layer for layer in range(3) if layer not in shape.dropped_layers]
    assert [(row["layer"], row["heads"], row["neurons"]) for row in found["layers"]] == [
        (layer + 1, shape.heads[layer], shape.neurons[layer]) for layer in kept
    ]
    assert found["sparsity"] == result.sparsity.model_dump()
    stored = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    places = found["parameters"]
    assert places["all"] == stored == sum(count for place, count in places.items() if place != "all")
    assert places["embeddings"] == (100 + 64 + 2) * 32
    assert places["attention"] + places["feedforward"] == result.size.encoder_linear_parameters
    assert places["head and rest"] == 2 * 32 + 32 * 32 + 32 + 32 * 2 + 2
    text = run_cli("info", folder).stdout
    assert "Removed against dense" in text and f"{places['attention']:,}" in text


def test_info_of_a_run_and_of_a_model_without_a_record(home, finished):
    assert [row["name"] for row in json.loads(run_cli("info", finished.folder, "--json").stdout)["models"]] == [
        "dense",
        "0.5-sparsity",
    ]
    found = json.loads(run_cli("info", home.model, "--json").stdout)
    assert "sparsity" not in found and found["full"] == {"layers": 3, "heads": 4, "neurons": 24}


def test_bench_of_a_run_measures_all_its_models(finished, tmp_path):
    out = tmp_path / "rows.json"
    arguments = ("bench", finished.folder, "--batch", 1, "--batch", 2, "--length", 8, "--rounds", 3, "--threads", 1)
    said = run_cli(*arguments, "-o", out)
    assert said.exit_code == 0, said.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["model"], row["batch"], row["length"]) for row in found["rows"]] == [
        ("dense", 1, 8),
        ("0.5-sparsity", 1, 8),
        ("dense", 2, 8),
        ("0.5-sparsity", 2, 8),
    ]
    assert found["rows"][1]["against_baseline"]["largest_difference"] > 0
    assert len(found["verdicts"]) == 2 and all("than dense" in text for text in found["verdicts"])
    assert "agree" in said.stdout and all(text in said.stdout for text in found["verdicts"])


def test_bench_of_a_model_with_itself_at_the_natural_length(home):
    arguments = ("bench", home.model, home.model, "--task", "mine", "--data", home.data, "--rounds", 3)
    found = json.loads(run_cli(*arguments, "--json").stdout)
    assert [row["model"] for row in found["rows"]] == ["model", "model (again)"]
    assert {(row["batch"], row["length"]) for row in found["rows"]} == {(1, 8)}
    assert found["rows"][1]["against_baseline"] == {"largest_difference": 0.0, "agreement": 1.0}


def test_bench_writes_nothing_unless_asked(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run_cli("bench", home.model, "--length", 8, "--rounds", 3, "--memory")
    assert said.exit_code == 0 and "Peak memory" in said.stdout and " MB" in said.stdout
    assert not list(tmp_path.iterdir())


def test_predict_gives_label_and_probability(home, finished):
    found = json.loads(run_cli("predict", finished.folder / "dense", "good w1", "bad w2", "--json").stdout)
    assert [row["text"] for row in found["predictions"]] == ["good w1", "bad w2"]
    for row in found["predictions"]:
        assert row["label"] in ("no", "yes") and 0.5 <= row["probability"] <= 1
    text = run_cli("predict", finished.folder / "dense", "good [w1]").stdout
    assert "good [w1]" in text and "Probability" in text


def test_predict_reads_lines_files_and_pairs(home, finished, tmp_path):
    model = finished.folder / "dense"
    lines = json.loads(run_cli("predict", model, "-", "--json", stdin="good w1\nbad\n").stdout)["predictions"]
    file = tmp_path / "texts.txt"
    file.write_text("good w1\nbad\n", encoding="utf-8")
    assert json.loads(run_cli("predict", model, "--file", file, "--json").stdout)["predictions"] == lines
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("a,b\ngood w1,w3\nbad,w4\n", encoding="utf-8")
    columns = ("--text-column", "a", "--text-column", "b")
    found = json.loads(run_cli("predict", model, "--file", pairs, *columns, "--json").stdout)["predictions"]
    assert [(row["text"], row["text_2"]) for row in found] == [("good w1", "w3"), ("bad", "w4")]
    assert found[0]["probability"] != lines[0]["probability"]


def test_predict_says_that_a_text_was_cut(finished):
    said = run_cli("predict", finished.folder / "dense", "good " * 70, "bad", "--json")
    assert json.loads(said.stdout)["notes"] == ["1 of 2 texts were longer than 64 tokens and were truncated"]
    assert "1 of 2 texts were longer than 64 tokens" in said.stderr


def test_predict_of_a_regression_is_a_value(tmp_path):
    model = save_tiny(tmp_path / "model", num_labels=1, problem_type="regression")
    (row,) = json.loads(run_cli("predict", model, "good w1", "--json").stdout)["predictions"]
    assert set(row) == {"text", "value"}


def test_listings():
    assert [row["name"] for row in json.loads(run_cli("tasks", "--json").stdout)] == task_names()
    assert [row["family"] for row in json.loads(run_cli("models", "--json").stdout)] == names("family")
    assert all(name in run_cli("tasks").stdout for name in task_names())
    assert all(name in run_cli("models").stdout for name in names("family"))


# What bad input gets


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
    "unknown task": (["--task", "sst3", "--speedup", 2], ["Unknown task 'sst3'", "Did you mean 'sst2'?"]),
    "unknown model": (["no-such/model", "--speedup", 2], ["no-such/model", "hub cannot be reached"]),
    "no such folder": (["./nowhere", "--speedup", 2], ["The model folder does not exist", "./nowhere"]),
    "unknown column": (
        ["--label-column", "labl", "--speedup", 2],
        ["no column 'labl'", "text, label, score"],
    ),
    "unknown key": (["--set", "finetune.epoch=1", "--speedup", 2], ["recipe key", "finetune.epoch", "epochs"]),
    "not a setting": (["--set", "seed", "--speedup", 2], ["key=value", "got seed"]),
    "value that is no YAML": (["--set", "task=[1", "--speedup", 2], ["value of a setting", "task=[1"]),
    "seed too large": (["--seed", 2**32, "--speedup", 2], ["seed", "less than 4294967296"]),
    "no such recipe": (["--recipe", "none.yaml", "--speedup", 2], ["recipe file does not exist", "none.yaml"]),
    "unknown criterion": (["--criterion", "magnitud", "--speedup", 2], ["criterion 'magnitud'", "Did you mean 'magn"]),
    "unknown shape": (["--shape", "layer", "--speedup", 2], ["shape", "'search' or 'layers'"]),
    "target below 1": (["--speedup", 0.5], ["target speedup must lie between 1 and 1000", "got 0.5"]),
    "latency of zero": (["--latency", "0ms"], ["target latency_ms must lie between 0", "got 0"]),
    "sparsity above 1": (["--sparsity", 1.5], ["target sparsity must lie between 0 and 1", "got 1.5"]),
    "size above 1": (["--size", 2], ["target size must lie between 0 and 1", "got 2"]),
    "same target twice": (["--speedup", 2, "--speedup", "2.0x"], ["same target is given twice", "2x"]),
    "targets and max-drop": (["--speedup", 2, "--max-drop", 1], ["targets or max_drop, not both"]),
    "negative drop": (["--max-drop", -1], ["max_drop", "greater than or equal to 0"]),
    "too long a setting": (["--speedup", 2, "--length", 65], ["no positions for that length", "got 65", "1 to 64"]),
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


def assert_refused(said, expected: list[str]) -> None:
    assert said.exit_code == 2, said.output
    lines = said.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said.stderr
    for words in expected:
        assert words in lines[0]
    assert said.stdout == ""


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


def test_folder_of_another_recipe_names_the_keys(home, finished):
    before = (finished.folder / "record.json").read_bytes()
    said = run_cli(*compress_arguments(home, finished.folder), "--sparsity", 0.6, "--seed", 3)
    assert_refused(said, ["run of another recipe", "different: seed, targets", "--output"])
    assert (finished.folder / "record.json").read_bytes() == before


def test_folder_of_the_user_is_left_alone(home, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    said = run_cli(*compress_arguments(home, tmp_path), "--sparsity", 0.5)
    assert_refused(said, ["not empty and not a run", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


OTHER_MISTAKES = {
    "bench back end": (["bench", "MODEL", "--backend", "eagre"], ["Unknown backend 'eagre'", "Did you mean 'eager'?"]),
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


def test_predict_of_a_run_lists_its_models(finished):
    assert_refused(run_cli("predict", finished.folder, "a"), ["a run, not a model", "dense, 0.5-sparsity"])


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


# The guard itself


def guarded(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(typer.Exit) as end, guard(debug, interrupted="stopped; go on"):
        raise error
    return end.value.exit_code


def test_guard_of_a_full_disk_and_of_a_refusal(capsys):
    assert guarded(OSError(errno.ENOSPC, "No space left on device", "x.bin")) == 2
    assert capsys.readouterr().err == "error: The disk is full; free some space and run the command again.\n"
    assert guarded(PermissionError(errno.EACCES, "Permission denied", "/root/x")) == 2
    assert capsys.readouterr().err == "error: Permission denied: /root/x\n"


def test_guard_of_ctrl_c(capsys):
    assert guarded(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped; go on\n"


def test_guard_shows_a_traceback_only_when_asked(capsys):
    assert guarded(UserError("Two\nlines", got=1)) == 2
    assert capsys.readouterr().err == "error: Two lines; got 1.\n"
    assert guarded(UserError("Wrong"), debug=True) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("error: Wrong.\n")


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-c", "from sparsebert.cli import main; main()", "tasks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("bug", [RuntimeError("size mismatch"), ValueError("no"), KeyError("x")])
def test_guard_lets_our_own_bugs_through(bug):
    with pytest.raises(type(bug)), guard(debug=False):
        raise bug
