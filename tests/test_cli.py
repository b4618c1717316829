"""The command line: what it prints, what it refuses, and how it says so."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.markup import escape
from rich.table import Table
from safetensors.torch import load_file

from example_record import train_record
from sparsebert.api import default_folder, targets_of
from sparsebert.cli.output import remark, say, show
from sparsebert.cli.settings import recipe_of
from sparsebert.models.surgeon import convert_ffn
from sparsebert.records import read_record, write_record
from sparsebert.registry import names
from sparsebert.reports import Table as ReportTable
from sparsebert.reports import as_rich
from sparsebert.reports.tables import Cell, Section
from sparsebert.tasks.table import task_names
from tiny import tiny_model
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task


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
        "import sys\nfrom sparsebert.cli.application import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pydantic', 'numpy', 'matplotlib', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sparsebert compress" in done.stdout and "--speedup" in done.stdout


def test_top_level_help_is_short_and_names_every_command():
    said = run_cli("--help").stdout
    assert len(said.splitlines()) < 70
    for command in ("compress", "bench", "report", "predict", "info", "tasks", "models"):
        assert command in said


def test_alone_it_says_its_help():
    alone = run_cli()
    assert alone.exit_code == 0 and alone.stdout == run_cli("--help").stdout


WRONG_USAGE = {
    "No such command 'squeeze'": ["squeeze"],
    "No such command 'compres'. Did you mean 'compress'": ["compres"],
    "No such option: --speed": ["compress", "--speed", 2],
    "Invalid value for '--latency': 'soon' is not a number": ["compress", "--latency", "soon"],
    "Missing argument 'RUN...'; --help says more.": ["report"],
    "Option '--task' is given 2 times and takes one value": ["compress", "--task", "rte", "--task=cola"],
    "Option '--seed' is given 3 times": ["bench", "m", "--seed", 1, "--seed", 2, "--seed", 1],
    "Option '--output' is given 2 times": ["predict", "m", "t", "-o", "a.json", "--output", "b.json"],
    "Option '--seeds' is given 2 times": ["sweep", "cofi", "--seeds", 1, "--seeds", 2],
    "An argument is not UTF-8; got 'caf\\udce9'": ["predict", "./none", "caf\udce9"],
}


@pytest.mark.parametrize("words", WRONG_USAGE)
def test_wrong_usage_takes_one_line(words):
    assert_refused(run_cli(*WRONG_USAGE[words]), [words])


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
    assert recipe_of(file, {}, ["finetune=null"]).finetune is None


def test_targets_are_sorted_from_weak_to_strong():
    goals = {"speedup": [4.0, 2.0], "latency_ms": [3.0, 8.0], "size": [0.2, 0.5], "sparsity": ()}
    found = [(target["kind"], target["value"]) for target in targets_of(goals)]
    assert found == [("speedup", 2), ("speedup", 4), ("latency_ms", 8), ("latency_ms", 3), ("size", 0.5), ("size", 0.2)]
    assert targets_of({"speedup": []}) == []


def test_default_folder_names_model_task_and_recipe():
    recipe = recipe_of(None, {"model": "someone/tiny-bert", "task": "rte"}, [])
    assert default_folder(recipe) == Path("runs") / f"tiny-bert-rte-{recipe.hash}"
    assert default_folder(recipe_of(None, {"seed": 1}, [])) != default_folder(recipe_of(None, {"seed": 2}, []))


# What a run prints


def test_compress_prints_table_verdict_notes_and_report(finished):
    assert finished.said.exit_code == 0, finished.said.output
    out = finished.said.stdout
    assert "0.5-sparsity" in out and "Accuracy" in out and "encoder" in out
    assert re.search(r"^0\.5-sparsity: .* than dense on this machine.*, encoder ", out, re.MULTILINE)
    assert "Note: validation rows are those of validation.csv" in out
    assert out.strip().splitlines()[-1] == f"Report: {finished.folder / 'report.html'}"
    assert "Warning" not in finished.said.output


def test_compress_in_json_and_a_second_call_keeps_what_is_finished(home, finished):
    files = sorted(finished.folder.rglob("model.safetensors")) + sorted(finished.folder.glob("work/**/*.json"))
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


def test_report_of_a_page_leaves_the_pictures_of_other_pages(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "record.json").write_bytes((finished.folder / "record.json").read_bytes())
    assert run_cli("report", run, pictures=True).exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in (run / "plots").iterdir()}
    for page in ("one.html", "two.html"):
        assert run_cli("report", run, "-o", run / page, pictures=True).exit_code == 0
    assert before and before == {file: file.stat().st_mtime_ns for file in (run / "plots").iterdir()}
    names = sorted(file.name for file in before)
    assert [sorted(file.name for file in (run / f"{page}-plots").iterdir()) for page in ("one", "two")] == [names] * 2


def test_report_takes_folders_of_sweeps(tmp_path):
    for sparsity in (0.5, 0.9):
        write_record(train_record(sparsity=sparsity), tmp_path / "sweep" / f"sparsity={sparsity}_seed=0")
    (tmp_path / "sweep" / "plots").mkdir()
    (tmp_path / "sweep" / "report.html").write_text("of the sweep", encoding="utf-8")
    said = run_cli("report", tmp_path / "sweep", "-o", tmp_path / "page.html", pictures=True)
    assert said.exit_code == 0, said.output
    assert "Score against sparsity" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (tmp_path / "page-plots" / "curves.png").is_file()
    assert [line.split() for line in said.stdout.splitlines()[:2]] == [
        ["Recipe", "50.0%", "90.0%"],
        ["Accuracy", "asked", "asked"],
    ]
    assert_refused(run_cli("report", tmp_path / "sweep" / "plots"), ["No record found", "a run's folder, a sweep's"])


def test_names_are_printed_as_they_are(capsys):
    name = "rival [soft] :smile: [/]"
    show(as_rich(ReportTable(name, (Cell(name),), (Section(name, ((Cell(name, name),),)),), (name,))))
    table = Table("Recipe")
    table.add_row(escape(name))
    show(table)
    say(name)
    remark(name)
    said = capsys.readouterr()
    assert said.out.count(name) == 7 and said.err == f"{name}\n"


def test_info_names_trees(home):
    folder = home.folder / "converted"
    convert_ffn(tiny_model("bert"), depth=3, trees=2, layers=[1]).save_pretrained(folder)
    rows = json.loads(run_cli("info", folder, "--json").stdout)["layers"]
    assert rows[0] == {"layer": 1, "heads": 4, "neurons": 24}
    assert rows[1] == {"layer": 2, "heads": 4, "neurons": 0, "tree": "2x3"}
    lines = [line.split() for line in run_cli("info", folder).stdout.splitlines()]
    assert ["1", "4", "24"] in lines and ["2", "4", "tree", "2x3"] in lines


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
    expected = {"largest_difference": 0.0, "relative_difference": 0.0, "sequences": 32, "agreement": 1.0}
    assert found["rows"][1]["against_baseline"] == expected


def test_bench_writes_nothing_unless_asked(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run_cli("bench", home.model, "--length", 8, "--rounds", 3, "--memory")
    assert said.exit_code == 0 and "memory" in said.stdout and " MB" in said.stdout
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
    assert set(row) == {"id", "text", "value"}


def test_listings():
    assert [row["name"] for row in json.loads(run_cli("tasks", "--json").stdout)] == task_names()
    listed = json.loads(run_cli("models", "--json").stdout)
    assert [row["family"] for row in listed["families"]] == names("family")
    assert [row["runtime"] for row in listed["runtimes"]] == names("runtime")
    assert all(name in run_cli("tasks").stdout for name in task_names())
    assert all(name in run_cli("models").stdout for name in names("family"))


def test_folder_of_another_recipe_names_the_keys(home, finished):
    before = (finished.folder / "record.json").read_bytes()
    said = run_cli(*compress_arguments(home, finished.folder), "--sparsity", 0.6, "--seed", 3)
    assert_refused(said, ["run of another recipe", "different: seed, targets", "--output"])
    assert (finished.folder / "record.json").read_bytes() == before


def test_predict_of_a_run_lists_its_models(finished):
    assert_refused(run_cli("predict", finished.folder, "a"), ["a run, not a model", "dense, 0.5-sparsity"])
