"""Every benchmark runs its whole path on tiny models and shapes; what it prints and writes is checked."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from forked import finished
from serving import exported
from sparsebert.kernels import native
from sparsebert.records import TimeSummary, read_record
from tiny_run import QUICK, run_cli, save_tiny, write_task

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("benchmarks")
    return SimpleNamespace(
        model=save_tiny(folder / "tuned", intermediate_size=64),
        data=write_task(folder / "data", train=32, validation=20),
    )


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A benchmark by its name, imported as when it is run."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def tables(printed: str) -> list[list[dict[str, str]]]:
    """The tables in Markdown on stdout: a dictionary a line."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", printed, re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        assert all(len(line) == len(header) for line in lines)
        found.append([dict(zip(header, line, strict=True)) for line in lines])
    return found


def written(file: Path, rounds: int = 2) -> list[dict[str, Any]]:
    """The rows of a benchmark's file; their times are checked to be a `TimeSummary`, quartiles in order."""
    plain = json.loads(file.read_text(encoding="utf-8"))
    assert plain["environment"]["cpu"] and plain["options"] and "output" not in plain["options"]
    for row in plain["rows"]:
        if "times" in row:
            times = TimeSummary.model_validate(row["times"])
            assert times.rounds >= rounds and 0 < times.q25_ms <= times.median_ms <= times.q75_ms
            assert (times.speedup is None) == (row["baseline"] is None)
    return plain["rows"]


def pairs(rows: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(row["variant"], row["baseline"]) for row in rows}


def words(*arguments: object) -> list[str]:
    """Arguments of a command."""
    return [str(argument) for argument in arguments]


def test_every_benchmark_has_a_test_here_and_a_main_that_takes_arguments() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    names = [file.stem for file in sorted(BENCHMARKS.glob("*.py")) if file.stem != "harness"]
    assert len(names) == 20 and [name for name in names if f'script("{name}")' not in text] == []
    for file in BENCHMARKS.glob("*.py"):
        assert file.stem == "harness" or "def main(argv: Sequence[str] | None = None)" in file.read_text("utf-8")


def test_rows_are_paired_and_the_table_has_a_column_a_baseline(
    script: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    harness = script("harness")
    samples = {"dense": [2.0, 4.0, 8.0], "sparse": [1.0, 1.0, 4.0]}
    rows = harness.rows_of({"tokens": 8}, samples, {"sparse": ["dense"]})
    assert [row["times"]["median_ms"] for row in rows] == [4.0, 1.0]
    # Ratios of the rounds are 2, 4, 2, so that their median is not the ratio of the medians.
    assert rows[1]["times"]["speedup"] == 2.0 and "speedup" not in rows[0]["times"]
    harness.print_rows(rows)
    (lines,) = tables(capsys.readouterr().out)
    assert lines[1] == {
        "tokens": "8",
        "variant": "sparse",
        "ms": "1 (1–2.5)",
        "times as fast as dense": "2 (2–3)",
    }
    assert lines[0]["times as fast as dense"] == ""


@pytest.mark.skipif(native.isa() is None, reason="needs the native library")
def test_linear(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "linear.json"
    script("linear").main(
        ["--shapes", "64x32", "--tokens", "4", "--sparsity", "0.5", "--rounds", "2", "--output", str(file)]
    )
    rows = written(file)
    assert {("dense fp32", None), ("32x32 blocks", "dense fp32"), ("single values", "dense fp32")} <= pairs(rows)
    assert all(row["case"] == {"inputs": 64, "outputs": 32, "tokens": 4, "sparsity": 0.5} for row in rows)
    for row in rows:
        operations = 2 * 4 * 64 * 32 * (1 if row["variant"].startswith("dense") else 0.5)
        assert row["useful_gflop_per_s"] == round(operations / row["times"]["median_ms"] / 1e6, 1)
    (lines,) = tables(capsys.readouterr().out)
    assert {line["variant"] for line in lines} == {row["variant"] for row in rows}


@pytest.mark.skipif(native.isa() is None, reason="needs the native library")
def test_fff(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fff.json"
    sizes = words("--hidden", 32, "--depth", 3, "--width", 48, "--pool", 32)
    module = script("fff")
    module.main(
        [*sizes, "--tokens", "1", "8", "--sorting", "16", "--threads", "1", "--rounds", "2", "--output", str(file)]
    )
    rows = written(file)
    # A tree of depth 3 has 15 nodes.
    assert {("dense 15 fp32", None), ("fff fp32", "dense 15 fp32"), ("fff fp32", "dense 48 fp32")} <= pairs(rows)
    assert ("sorted at level 2", "not sorted") in pairs(rows)
    assert {row["case"]["tokens"] for row in rows} == {1, 8, 16}
    (lines,) = tables(capsys.readouterr().out)
    last = "dense 48 bf16 packed" if module.has_bf16() else "dense 48 fp32"
    assert lines[0]["tokens"] == "1" and f"times as fast as {last}" in lines[0]


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_fff_primitive(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, module = tmp_path / "primitive.json", script("fff_primitive")
    sizes = words("--tokens", 32, "--hidden", 24, "--depth", 3, "--width", 20, "--pool", 64, "--part", 4)
    module.main([*sizes, "--types", "fp32", "--rounds", "2", "--output", str(file)])
    rows = written(file)
    # A tree of depth 3 has 15 nodes.
    dense = ["dense 15", "dense 20"]
    own = {("dense 15", None), ("dense 20", None), *(("tree 1x3", base) for base in dense)}
    for primitive in (*module.A_TOKEN_AT_A_TIME, module.COMPILED):
        found = pairs([row for row in rows if row["case"]["primitive"] == primitive])
        assert found == own | {("tree 1x3", f"best {base}") for base in dense}
    assert pairs([row for row in rows if row["case"]["primitive"] == module.BEST]) == own
    for row in rows:
        a_part = row["case"]["primitive"] in module.A_TOKEN_AT_A_TIME and row["variant"] in dense
        assert row["tokens_run"] == (4 if a_part else 32) and row["case"]["tokens"] == 32
        assert row["case"]["type"] == "fp32" and ("blas" in row) == ("BLAS" in row["case"]["primitive"])
    (lines,) = tables(capsys.readouterr().out)
    assert len(lines) == 5 * 3 and lines[2]["times as fast as best dense 20"]


def test_encoder(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "encoder.json"
    sizes = words("--layers", 1, "--hidden", 64, "--heads", 2, "--batch", 2, "--length", 16, "--depth", 3)
    script("encoder").main([*sizes, "--threads", "1", "--rounds", "2", "--output", str(file)])
    rows, printed = written(file), capsys.readouterr().out
    engines = {row["variant"] for row in rows}
    assert {"torch fp32", "torch.compile fp32", "dense, own attention", "sparsebert fff 1x3"} <= engines
    assert {"sparsebert 90% blocks", "sparsebert 90% single values"} <= engines
    for package, engine in (("onnxruntime", "onnxruntime int8"), ("openvino", "openvino fp32")):
        there = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", package))
        assert (engine in engines) == there
        assert there or "left out, not installed: " in printed
    fastest = re.search(r"the fastest dense engine is (.*)", printed)
    assert fastest is not None
    assert {row["baseline"] for row in rows} == {"torch fp32", fastest[1]}
    assert {line["variant"] for line in tables(printed)[0]} == engines


def test_gpu(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    options = words("--hidden", 64, "--depth", 4, "--tokens", 32, "--rounds", 2, "--output", file)
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="there is no GPU here"):
            script("gpu").main(options)
        assert not file.exists()
        return
    script("gpu").main(options)
    assert {"fff", "32x32 blocks", "dense"} <= {row["variant"] for row in written(file)}


def test_layer_times(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "layers.json"
    sizes = words("--hidden", 32, "--heads", 4, "--neurons", 64, "--batch", 1, "--length", 8)
    script("layer_times").main([*sizes, "--threads", "1", "--rounds", "2", "--output", str(file)])
    rows = written(file)
    cuts = {"4 heads", "3 heads", "2 heads", "1 heads", "0 heads", "64 neurons", "48 neurons", "32 neurons"}
    assert {row["variant"] for row in rows} == {"whole layer", *cuts, "16 neurons"}
    assert {row["baseline"] for row in rows} == {"whole layer"}
    (lines,) = tables(capsys.readouterr().out)
    assert lines[0]["times as fast as whole layer"] == "1 (1–1)" and len(lines) == len(rows)


def test_training_cost(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cost.json"
    sizes = words("--model", home.model, "--batch", 2, "--length", 8, "--threads", 1, "--rounds", 2)
    module = script("training_cost")
    module.main([*sizes, "--output", str(file)])
    rows = written(file)
    assert {row["variant"] for row in rows} == set(module.RULES)
    assert ("RigL, a step that swaps", "RigL, a step without a swap") in pairs(rows)
    (lines,) = tables(capsys.readouterr().out)
    costs = [float(line["over the baseline, median (quartiles)"].split()[0]) for line in lines[1:]]
    speedups = [row["times"]["speedup"] for row in rows[1:]]
    assert costs == [pytest.approx(1 / speedup, abs=0.001) for speedup in speedups]


def test_trainer_overhead(
    script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "overhead.json"
    sizes = words("--model", home.model, "--steps", 2, "--batch", 2, "--length", 8, "--threads", 1, "--rounds", 2)
    script("trainer_overhead").main([*sizes, "--output", str(file)])
    rows = written(file)
    assert [(row["variant"], row["baseline"]) for row in rows] == [
        ("bare Trainer", None),
        ("fine_tune", "bare Trainer"),
        ("fine_tune, two evaluations", "bare Trainer"),
    ]
    (lines,) = tables(capsys.readouterr().out)
    cost = float(lines[1]["over the bare Trainer, median (quartiles)"].split()[0])
    assert cost == pytest.approx(1 / rows[1]["times"]["speedup"], abs=0.001)


def test_workers(
    script: Any,
    home: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, module = tmp_path / "workers.json", script("workers")

    def run(command: list[str], **_: object) -> object:
        assert command[:3] == [sys.executable, "-m", "sparsebert"]
        return finished(command[3:])

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
    task = words("--model", home.model, "--task", "mine", "--data", home.data)
    sizes = words("--runs", 2, "--steps", 1, "--batch", 8, "--length", 8, "--examples", 16, "--rounds", 1)
    module.main([*task, *sizes, "--output", str(file)])
    rows = written(file, rounds=1)
    assert pairs(rows) == {("local", None), ("local:2", "local")}
    (lines,) = tables(capsys.readouterr().out)
    ratio = float(lines[1]["over local, median (quartiles)"].split()[0])
    assert ratio == pytest.approx(1 / rows[1]["times"]["speedup"], abs=0.01)
    # What failed would be quick.
    with pytest.raises(SystemExit, match="Unknown task"):
        module.main(words("--task", "nothing", "--rounds", 1))


def test_one_shot(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one-shot.json"
    task = words("--model", home.model, "--task", "mine", "--data", home.data, "--seeds", 2)
    script("one_shot").main([*task, "--sparsity", "0.3", "0.6", *QUICK, "--output", str(file)])
    rows, (lines,) = written(file), tables(capsys.readouterr().out)
    assert [line["criterion"] for line in lines] == ["dense", "obs", "magnitude", "random", "gradient", "activation"]
    assert len(rows) == 2 * (1 + 5 * 2)
    for row in rows[1:11]:
        first = next(one for one in rows[1:] if (one["criterion"], one["sparsity"]) == ("obs", row["sparsity"]))
        assert row["shape"] == first["shape"] and row["divergence"] >= 0
    dense = [row["scores"]["accuracy"] for row in rows if row["criterion"] == "dense"]
    assert dense[0] == dense[1] and {row["metric"] for row in rows} == {"accuracy"}
    asked = [100 * row["scores"]["accuracy"] for row in rows if (row["criterion"], row["sparsity"]) == ("obs", 0.3)]
    assert lines[1]["0.3 of encoder weights removed"].split()[0] == f"{sum(asked) / 2:.1f}"


def test_structured_and_forms(
    script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "structured", tmp_path / "records"
    task = words("--model", home.model, "--task", "mine", "--data", home.data, "--seeds", 1)
    sized = ["targets=[{kind: sparsity, value: 0.5}]", "finetune.max_steps=2", "measure.length=8"]
    settings = [*QUICK, *(word for one in sized for word in ("--set", one))]
    wanted = ["--arms", "obs", "layers", "--runs", str(runs), "--output", str(out)]
    script("structured").main([*task, *settings, *wanted])
    (lines,) = tables(capsys.readouterr().out)
    assert [(line["arm"], line["target"]) for line in lines] == [
        (arm, name) for arm in ("obs", "layers") for name in ("dense", "0.5-sparsity")
    ]
    record = read_record(out / "obs-0")
    score = next(one.value for one in record.models[1].scores if one.metric == record.main_metric)
    assert lines[1]["score: median (min–max), n"] == f"{100 * score:.1f} ({100 * score:.1f}–{100 * score:.1f}), 1"
    assert 0.4 < float(lines[1]["encoder sparsity"]) < 0.7 and lines[0]["one-shot"] == ""
    assert run_cli("report", out / "obs-0", out / "layers-0", "-o", tmp_path / "report.html").exit_code == 0

    file = tmp_path / "forms.json"
    pruned = words("--cut", runs / "obs-0", "--forms", "single fisher", "--sparsity", 0.5, "--steps", 4)
    sizes = words("--batch", 2, "--length", 8, "--rounds", 2, "--runs", tmp_path / "forms", "--output", file)
    script("forms").main([*task, *pruned, *sizes])
    rows, (scores, timed) = written(file), tables(capsys.readouterr().out)
    assert [line["model"] for line in scores] == ["heads and neurons obs 0.5-sparsity", "single fisher 50%"]
    names = [row["variant"] for row in rows]
    assert names[:2] == ["dense, by torch", "dense, by own attention"] and "single fisher 50%, by torch" in names
    assert {row["baseline"] for row in rows} == {"dense, by torch"} and len(timed) == len(rows)
    cut = next(row for row in rows if row["variant"].startswith("heads and neurons"))
    assert cut["score"] == [round(100 * score, 1)] * 3 and cut["seeds"] == 1


def test_criteria(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "records"
    task = words("--model", home.model, "--task", "mine", "--data", home.data, "--seeds", 1, "--epochs", 2)
    what = words("--methods", "magnitude", "soft movement", "--sparsity", 0.5, 0.8, "--batch-size", 8)
    where = words("--runs", tmp_path / "runs", "--output", out)
    script("criteria").main([*task, *what, "--teacher", str(home.model), *where])
    (lines,) = tables(capsys.readouterr().out)
    assert [next(iter(line.values())) for line in lines] == ["magnitude, teacher", "soft movement, teacher"]
    assert sorted(folder.name for folder in out.iterdir()) == [
        "magnitude_0.5_seed0",
        "magnitude_0.8_seed0",
        "soft-movement_0.5_seed0",
        "soft-movement_0.8_seed0",
    ]
    record = read_record(out / "magnitude_0.8_seed0")
    assert math.isclose(record.models[-1].sparsity.encoder_linear, 0.8, abs_tol=0.01)
    assert (tmp_path / "runs" / "report.html").is_file()


def test_predict_beside_a_pipeline(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("onnxruntime")
    assert run_cli("export", home.model, "-o", tmp_path / "served").exit_code == 0
    options = ["--model", str(home.model), "--exported", str(tmp_path / "served"), "--output", str(tmp_path / "o.json")]
    capsys.readouterr()
    script("predict").main([*options, "--count", "12", "--batch", "4", "--rounds", "3"])
    [lines] = tables(capsys.readouterr().out)
    assert [line["variant"] for line in lines] == ["pipeline", "eager", "onnx", "tokens alone"]
    assert [row["baseline"] for row in written(tmp_path / "o.json")] == [None, "pipeline", "pipeline", "pipeline"]


def test_static_floor(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = words("--model", home.model, "--task", "mine", "--data", home.data, "--widths", 32, "--seeds", 2)
    script("static_floor").main([*task, "--epochs", "30", "--output", str(tmp_path / "s.json")])
    [[line]] = tables(capsys.readouterr().out)
    assert float(line["megabytes"]) == round((int(line["entries"]) * 33 + 264) / 1e6, 2) and float(line["lowest"]) >= 45


def test_vocabulary(script: Any, home: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = words("--model", home.model, "--task", "mine", "--data", home.data, "--most", 20)
    script("vocabulary").main([*task, "--output", str(tmp_path / "v.json")])
    [(whole, few)] = tables(capsys.readouterr().out)
    assert few["entries"] == "20" and 20 < int(whole["entries"]) <= 67
    assert int(whole["changed"]) < int(few["changed"]) <= int(few["new_texts"])


def test_waiting(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    folders = [str(exported(tmp_path, "tiny")), "--waiting", "3", "--call", "0", "9"]
    script("waiting").main([*folders, "--draws", "2", "--rounds", "3", "--output", str(tmp_path / "w.json")])
    [lines] = tables(capsys.readouterr().out)
    assert [line["variant"] for line in lines] == ["as one", "a call costs 0", "a call costs 9"]
    assert [row["baseline"] for row in written(tmp_path / "w.json", 3)] == [None, "as one", "as one"]


def test_serve(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    model, file = exported(tmp_path, "tiny"), tmp_path / "serve.json"
    loads = words("--clients", 2, "--rate", 40, "--seconds", 0.3, "--rounds", 2)
    script("serve").main([str(model), *loads, "--output", str(file)])
    (lines,) = tables(capsys.readouterr().out)
    assert [(line["load"], line["server"]) for line in lines] == [
        (load, server)
        for load in ("2 clients", "40 requests a second")
        for server in ("dynamic batches", "one at a time")
    ]
    for row in written(file):
        assert row["requests_per_s"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] and row["refused"] == 0


def test_serve_load(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    model, file = exported(tmp_path, "tiny"), tmp_path / "load.json"
    script("serve_load").main([str(model), *words("--minutes", 0.05, "--clients", 4, "--output", file)])
    (lines,) = tables(capsys.readouterr().out)
    (row,) = written(file)
    assert [line["minute"] for line in lines] == ["1"]
    assert row["status_200"] > 20 and row["status_400"] + row["status_413"] + row["status_422"] > 0
    assert (row["other"], row["wrong"]) == (0, 0) and row["aborted"] > 0 and row["resident_mb"] > 10


def test_explorer(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("starlette", "jinja2", "plotly"):
        pytest.importorskip(package)
    file = tmp_path / "explorer.json"
    script("explorer").main(words("--records", 2, "--rounds", 1, "--clicks", 3, "--output", file))
    (lines,) = tables(capsys.readouterr().out)
    assert [(line["records"], line["what"], line["n"]) for line in lines] == [
        (count, what, n) for count in ("1", "2") for what, n in (("open, s", "1"), ("answer, ms", "3"))
    ]
    assert all(0 < float(row["least"]) <= float(row["median"]) <= float(row["most"]) for row in written(file))
