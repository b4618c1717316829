"""`sparsebert export`: programs in a folder, checked and scored, and read again where there is no torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import pipeline

import sparsebert
from sparsebert import Predictor, UserError
from sparsebert.data.file_tokenizer import FileTokenizer
from sparsebert.deployment import exported as exported_module
from sparsebert.deployment.manifest import Manifest, read_manifest
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.runs import export as export_module
from sparsebert.runs.export import export
from sparsebert.runs.subject import Wish
from sparsebert.runtimes.onnx import Onnx
from sparsebert.runtimes.program import open_program
from tiny_run import assert_refused, run_cli, save_tiny, write_task

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
TEXTS = ["good", "bad w1 w2 w3", "w4 good w5", "", "unheard-of words", "bad " * 90]
INT8 = ("--precision", "int8")
ALL = ("--to", "onnx", "--to", "openvino", "--precision", "fp32", "--precision", "int8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its task, and `all`: every program of it that runs anywhere."""
    found = tmp_path_factory.mktemp("export")
    save_tiny(found / "model", num_hidden_layers=1, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    write_task(found / "task", train=100)
    own = ("--task", "own", "--data", found / "task", "--calibration", 30)
    said = run_cli("export", found / "model", "-o", found / "all", *ALL, *own)
    assert said.exit_code == 0, said.output
    (found / "said.txt").write_text(said.stdout, encoding="utf-8")
    return found


@pytest.fixture
def made_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The exporter takes seconds, and gives the same program again: it is copied instead. Where to, in this test."""
    made = list[Path]()

    def convert(self: Onnx, model: Any, inputs: Any, file: Path) -> None:
        made.append(file)
        shutil.copy(home / "all" / "onnx" / "model.onnx", file)

    monkeypatch.setattr(Onnx, "convert", convert)
    return made


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "all", tmp_path / "all"))


def test_the_folder_has_the_layout_that_users_of_the_engines_know(home: Path):
    files = {str(file.relative_to(home / "all")) for file in (home / "all").rglob("*") if file.is_file()}
    assert files == {
        "config.json",
        "deployment.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "openvino/openvino_model.bin",
        "openvino/openvino_model.xml",
        "openvino/openvino_model_qint8_quantized.bin",
        "openvino/openvino_model_qint8_quantized.xml",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    # Neither folders of this machine nor texts get into a program.
    assert not any(str(home).encode() in file.read_bytes() for file in (home / "all" / "onnx").iterdir())


def test_every_program_is_checked_and_scored_beside_torch(home: Path):
    manifest = read_manifest(home / "all")
    assert [one.runtime for one in manifest.programs] == ["onnx", "onnx-int8", "openvino", "openvino-int8"]
    assert manifest.scores[0].metric == "accuracy" and manifest.scores[0].examples == 40
    for one in manifest.programs:
        assert (one.texts, one.scores[0].metric, one.scores[0].examples) == (40, "accuracy", 40)
        assert one.bytes_on_disk == sum((home / "all" / name).stat().st_size for name in one.files)
        if one.precision == "fp32":
            assert one.relative_difference < 1e-5 and one.agreement == 1.0 and one.scores[0].change_low == 0.0
        else:
            assert 1e-4 < one.relative_difference < 1.0
    ways = [one.way for one in manifest.programs]
    assert ways[:3] == [None, None, None] and str(ways[3]).endswith(("smoothed", "0.5", "0.95"))
    said = (home / "said.txt").read_text(encoding="utf-8")
    assert "openvino-int8" in said and f"Written to {home / 'all'}" in said.replace("\n", "")


def test_of_several_ways_the_closest_to_torch_is_kept(
    home: Path, tmp_path: Path, made_before: list[Path], monkeypatch: pytest.MonkeyPatch
):
    """One way rounds, and one does not; what both start from is made once."""
    quantise = Onnx.quantise
    monkeypatch.setattr(Onnx, "ways", ("rounded", "exact"))

    def one_way(self: Onnx, exact: Path, texts: Any, file: Path, way: str, kept: Any) -> None:
        if way == "exact":
            shutil.copy(exact, file)
        else:
            quantise(self, exact, texts, file, way, kept)

    monkeypatch.setattr(Onnx, "quantise", one_way)
    recipe = sparsebert.load_recipe(None, ["task=own", f"data={home / 'task'}"])
    [program] = export(Wish(str(home / "model"), tmp_path / "out", ("onnx-int8",), recipe)).programs
    assert program.way == "exact" and len(made_before) == 1
    assert program.divergences["exact"] < 1e-6 < program.divergences["rounded"]
    # Of the file that is there, whichever is named.
    assert program.relative_difference < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("made_before")
def test_matrices_that_rounding_harms_most_stay_in_float32(home: Path, tmp_path: Path):
    """As many as asked in both engines, the most sensitive first."""
    whole = load_model(home / "model")
    layers = [name for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear)]
    own = ("--task", "own", "--data", home / "task", "--to", "onnx", "--to", "openvino", *INT8, "--calibration", 30)
    names, rounded = dict[int, list[str]](), list[int]()
    for count in (0, 2, len(layers)):
        # None are kept where none are asked for.
        out = tmp_path / str(count) if count else home / "all"
        if count:
            said = run_cli("export", home / "model", "-o", out, *own, "--keep-fp32", count)
            assert said.exit_code == 0, said.output
        programs = [one for one in read_manifest(out).programs if one.precision == "int8"]
        assert programs[0].kept == programs[1].kept
        assert list(programs[0].kept.values()) == sorted(programs[0].kept.values(), reverse=True)
        names[count] = list(programs[0].kept)
        # Matrices, and not roundings of their inputs, which several matrices may share.
        rounded.append((out / programs[1].file).read_text(encoding="utf-8").count('"i8"'))
    assert names[0] == [] and names[2] == names[len(layers)][:2] and set(names[len(layers)]) == set(layers)
    assert "onnx-int8 keeps in float32:" in said.stdout
    assert rounded[0] > rounded[1] > rounded[2]
    graph = onnx.load(tmp_path / "2" / "onnx" / "model_quantized.onnx").graph
    exact = {node.name.split("/")[0] for node in graph.node if node.op_type in ("MatMul", "Gemm")}
    assert exact & set(layers) == set(names[2])
    whole_graph = onnx.load(tmp_path / str(len(layers)) / "onnx" / "model_quantized.onnx").graph
    assert not [node.name for node in whole_graph.node if node.op_type == "MatMulInteger"]


def test_few_rows_are_shared_between_scales_and_judgement(home: Path, tmp_path: Path):
    """Of 40 rows ten choose between the ways, whatever --calibration asks for."""
    write_task(tmp_path / "task", train=40)
    own = ("--task", "own", "--data", tmp_path / "task", "--to", "openvino", *INT8)
    said = run_cli("export", home / "model", "-o", tmp_path / "out", *own, "--calibration", 300)
    assert said.exit_code == 0, said.output
    assert len(read_manifest(tmp_path / "out").programs[0].divergences) == 3


def test_matrices_to_keep_need_rows_and_a_program_in_int8(home: Path, tmp_path: Path):
    task = ("--task", "own", "--data", home / "task")
    for words, options in (
        ("Only programs in int8 can keep", ("--keep-fp32", 1, *task)),
        (
            "Train rows tell which matrices to keep in float32, and there are none",
            ("--keep-fp32", 1, *INT8, "--no-data"),
        ),
        ("fewer matrices than --keep-fp32", ("--keep-fp32", 99, *INT8, *task)),
    ):
        assert_refused(run_cli("export", home / "model", "-o", tmp_path / "out", *options), words)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "onnx-int8", "openvino-int8"])
def test_the_exported_folder_answers_as_the_model(home: Path, runtime: str):
    exact, found = Predictor(home / "model", "eager"), Predictor(home / "all", runtime, batch=2)
    tolerance = {"rel": 0.2} if runtime.endswith("int8") else {"abs": 1e-5}
    [(expected, cut)], [(answers, also)] = exact.answers(TEXTS), found.answers(TEXTS)
    assert cut == also == 1 and found.runtime == runtime
    for one, other in zip(answers, expected, strict=True):
        assert one["probabilities"]["no"] == pytest.approx(other["probabilities"]["no"], **tolerance)


@pytest.mark.process
def test_it_runs_where_there_is_no_torch_and_no_transformers(home: Path):
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "datasets", "accelerate"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import json, sparsebert
predictor = sparsebert.Predictor({str(home / "all")!r}, "onnx", threads=1)
print(json.dumps(predictor(["good", "bad w1"])))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = Predictor(home / "model", "eager")(["good", "bad w1"])
    for one, other in zip(json.loads(said.stdout), expected, strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_auto_measures_once_what_is_there_and_takes_the_fastest(home: Path, monkeypatch: pytest.MonkeyPatch):
    said = run_cli("predict", home / "all", "good", "bad", "--stats")
    assert said.exit_code == 0, said.output
    note = said.stderr.splitlines()[0]
    assert note.startswith("Runtime ") and note.endswith(" for 2 texts")
    assert all(name in note for name in ("onnx", "onnx-int8", "openvino", "openvino-int8"))
    assert "texts per second; 1 batches of up to 2: p50" in said.stderr
    slow = {"onnx": 3.0, "onnx-int8": 2.0, "openvino": 1.0, "openvino-int8": 4.0}
    opened: list[Any] = []

    def fake(one: Any, first: Any, second: Any) -> float:
        if one not in opened:
            opened.append(one)
        return list(slow.values())[opened.index(one)]

    monkeypatch.setattr("sparsebert.deployment.predictor._time", fake)
    predictor = Predictor(home / "all")
    predictor(["good"])
    assert (predictor.runtime, predictor.measured_ms) == ("openvino", slow)
    predictor(["good", "bad"])
    assert len(opened) == 4


def test_the_pipeline_of_transformers_gives_the_same(home: Path):
    pipe, own = pipeline("text-classification", str(home / "model")), Predictor(home / "all", "onnx")
    for given, options in (
        ("good w1", {}),
        (["good w1", "bad"], {}),
        (["good w1", "bad"], {"top_k": None}),
        ("good w1", {"top_k": None}),
        ({"text": "good", "text_pair": "bad w2"}, {}),
        ([{"text": "good", "text_pair": "bad w2"}, {"text": "w1", "text_pair": "w2 w3"}], {}),
    ):
        expected, found = pipe(given, **options), own(given, **options)
        assert json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 4)) == json.loads(
            json.dumps(expected), parse_float=lambda x: round(float(x), 4)
        )


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(home: Path, tmp_path: Path):
    model, out = home / "model", tmp_path / "out"
    own = ("--task", "own", "--data", home / "task")
    for given, words in (
        (("--to", "onnxx"), ["There is no such program", "onnxx fp32", "openvino int8"]),
        (("--precision", "bf16"), ["There is no such program", "onnx bf16"]),
        (("--to", "openvino", "--precision", "int8"), ["texts set the scales", "--task, --data"]),
        (("--max-drop", 1), ["--max-drop needs rows to score on"]),
        (("--task", "own", "--data", tmp_path / "none"), ["none"]),
        (("--task", "rte", "--data", home / "task"), ["rte"]),
    ):
        assert_refused(run_cli("export", model, "-o", out, *given), words)
    assert_refused(run_cli("export", model, "-o", home / "all", *own), ["The output folder exists already"])
    assert_refused(run_cli("export", tmp_path / "none", "-o", out), ["The model folder does not exist"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"has no programs to export; got eager; allowed: onnx, onnx-int8, openvino"):
        export(Wish(str(model), out, ("eager",)))


def test_a_model_for_another_task_is_refused(home: Path, tmp_path: Path):
    save_tiny(tmp_path / "model", num_labels=3, num_hidden_layers=1)
    own = ("--task", "own", "--data", home / "task")
    assert_refused(run_cli("export", tmp_path / "model", "-o", tmp_path / "out", *own), ["not fine-tuned for the task"])


def test_a_program_that_computes_something_else_is_not_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = home / "all" / "onnx" / "model_quantized.onnx"
    monkeypatch.setattr(Onnx, "convert", lambda self, model, inputs, file: shutil.copy(other, file))
    with pytest.raises(UserError, match="The program onnx does not compute the same model; got outputs "):
        export(Wish(str(home / "model"), tmp_path / "out", ("onnx",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("made_before")
def test_a_program_that_loses_more_than_it_may_is_not_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export_module, "_of_rows", lambda opened, rows, kind: np.zeros((len(rows), 2)))
    values = iter([0.5, 0.52])
    monkeypatch.setattr("sparsebert.runs.context.RunContext.main_value", lambda self, predictions: next(values))
    recipe = sparsebert.load_recipe(None, ["task=own", f"data={home / 'task'}"])
    words = r"loses more than --max-drop; got 2\.00 points of accuracy; allowed: 1"
    with pytest.raises(UserError, match=words):
        export(Wish(str(home / "model"), tmp_path / "out", ("onnx-int8",), recipe, max_drop=1.0))
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_fit_each_other_are_found(home: Path, copy: Path):
    (copy / "onnx" / "model.onnx").write_bytes((copy / "onnx" / "model_quantized.onnx").read_bytes())
    words = ["The program onnx is not the one that was exported", "got onnx/model.onnx", "export the model again"]
    assert_refused(run_cli("predict", copy, "good", "--runtime", "onnx"), words)
    (copy / "openvino" / "openvino_model.bin").unlink()
    assert_refused(run_cli("predict", copy, "good", "--runtime", "openvino"), ["got openvino/openvino_model.bin"])
    (copy / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert_refused(run_cli("predict", copy, "good", "--runtime", "onnx-int8"), ["tokenizer.json is no tokenizer"])
    (copy / "deployment.json").write_text('{"schema_version": 2}', encoding="utf-8")
    assert_refused(run_cli("predict", copy, "good"), ["deployment.json cannot be read", "export the model again"])


def test_a_runtime_that_is_not_in_the_folder(home: Path):
    said = run_cli("predict", home / "all", "good", "--runtime", "eager")
    assert_refused(said, ["The exported folder has no such program", "allowed: auto, onnx, onnx-int8, openvino"])
    for length in (0, 1000):
        assert_refused(run_cli("predict", home / "all", "good", "--max-length", length), ["does not fit the exported"])
    assert_refused(run_cli("predict", home / "model", "good", "--runtime", "openvino-int8"), ["sparsebert export"])
    for runtime in ("onnx", "auto"):
        no_threads = run_cli("predict", home / "all", "good", "--runtime", runtime, "--threads", 0)
        assert_refused(no_threads, ["That is no number of threads; got 0"])


def test_the_manifest_comes_back_as_it_was(home: Path):
    manifest = read_manifest(home / "all")
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.inputs == ("input_ids", "attention_mask", "token_type_ids") and manifest.segments == 2


def test_the_file_alone_cuts_pairs_as_transformers_does(home: Path):
    tokenizer = load_tokenizer(home / "model")
    alone = FileTokenizer(home / "all" / "tokenizer.json", 0, 0)
    first, second = ["good " * 30, "w1"], ["bad " * 9, "w2 " * 40]
    for limit in (12, 5):
        expected = tokenizer(first, second, truncation=True, max_length=limit, return_token_type_ids=True)
        how = {"truncation": True, "max_length": limit, "return_attention_mask": True, "verbose": False}
        found = alone(first, second, **how)
        assert {name: found[name] for name in expected} == dict(expected)


def test_rows_are_those_of_the_run_that_made_the_model(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Which rows were held out of its data follows from keys of its recipe, and so must what is scored."""
    asked: list[Any] = []
    monkeypatch.setattr("sparsebert.runs.export.export", lambda wish, say: asked.append(wish) or 1 / 0)
    record = SimpleNamespace(
        kind="compress",
        recipe={"task": "own", "data": str(home / "task"), "data_seed": 7, "hold_out": 0.2, "max_length": 99},
    )
    monkeypatch.setattr("sparsebert.models.named.record_beside", lambda folder: record)
    run_cli("export", home / "model", "-o", home / "none", "--set", "train_examples=50")
    recipe = asked[0].recipe
    assert (recipe.task, recipe.data_seed, recipe.hold_out, recipe.train_examples) == ("own", 7, 0.2, 50)
    run_cli("export", home / "model", "-o", home / "none", "--no-data")
    record.kind = "pretrain"
    run_cli("export", home / "model", "-o", home / "none")
    assert [wish.recipe for wish in asked[1:]] == [None, None]
    assert_refused(
        run_cli("export", home / "model", "-o", home / "none", "--set", "data_seed=1"), ["Nothing says which"]
    )


def test_texts_are_as_long_as_the_model_was_trained_at_whatever_recipes_say(home: Path):
    """The model's tokenizer says 64 tokens, a recipe 128."""
    assert read_manifest(home / "all").max_length == 64


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "openvino-int8"])
def test_a_program_is_asked_in_few_shapes_where_each_new_one_takes_long(
    home: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
):
    """OpenVINO's are, and the answers are the same; lengths stay within what the model reads."""
    texts = [" ".join(["good"] * words) for words in (1, 2, 3, 5, 6, 7, 9, 200)]
    shapes = set[tuple[int, int]]()
    plain = Predictor(home / "all", runtime, batch=1)(texts, top_k=None)

    def watched(engine: Any, *rest: Any) -> Any:
        program = open_program(engine, *rest)

        def run(given: Any) -> Any:
            shapes.add(given["input_ids"].shape)
            return program.run(given)

        return dataclasses.replace(program, run=run)

    monkeypatch.setattr(exported_module, "open_program", watched)
    predictor = Predictor(home / "all", runtime, batch=5)
    found = predictor(texts, top_k=None)
    longest = read_manifest(home / "all").max_length
    few = {(4, 8), (4, 12), (1, longest)}
    assert shapes == ({(3, 5), (4, 11), (1, longest)} if runtime == "onnx" else few)
    for one, other in zip(found, plain, strict=True):
        assert {row["label"]: pytest.approx(row["score"], abs=1e-5) for row in one} == {
            row["label"]: row["score"] for row in other
        }
    met = predictor.warm_up(600.0)
    lengths = {*range(4, 33, 4), *range(40, 65, 8)}
    assert met == (0 if runtime == "onnx" else 4 * len(lengths))
    assert runtime == "onnx" or shapes == {(rows, length) for rows in (1, 2, 4, 8) for length in lengths}
    assert predictor.warm_up(0.0) <= 1
