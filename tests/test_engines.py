"""Runtimes that run a model as one program, ONNX Runtime and OpenVINO: torch's outputs, for any batch and length."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from forked import RemoteCopy
from sparsebert import registry
from sparsebert.measurement import station
from sparsebert.measurement.bench import bench
from sparsebert.measurement.setting import Setting
from sparsebert.models.accelerate import accelerate
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from sparsebert.runtimes import program
from sparsebert.runtimes.onnx import ONNX, ONNX_INT8
from sparsebert.runtimes.openvino import OPENVINO, OPENVINO_BF16, OPENVINO_INT8
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.runtimes.whole import WholeProgram
from sparsebert.timing import torch_threads
from test_surgeon import NO_NEURON, NONE
from tiny import ARCHITECTURES, HEADS, NAMES, NEURONS, Logits, tiny_batch, tiny_model

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


@pytest.mark.filterwarnings("ignore")
def test_a_tree_that_runs_by_our_kernels_is_exported_without_them(tmp_path: Path):
    torch.manual_seed(0)
    model = tiny_model("modernbert", num_hidden_layers=1, layer_types=["full_attention"])
    sparse = accelerate(convert_ffn(model, depth=3, trees=2), tokens=8, worth=0).eval()
    batch, free = tiny_batch(), {0: "batch", 1: "length"}
    with torch.no_grad():
        given = tuple(batch[name] for name in NAMES)
        program = torch.onnx.export(
            Logits(sparse), given, dynamo=True, verbose=False, dynamic_shapes=dict.fromkeys(NAMES, free)
        )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for other in (batch, tiny_batch(1, rows=5, length=9)):
        [found] = session.run(None, {name: other[name].numpy() for name in NAMES})
        with torch.no_grad():
            torch.testing.assert_close(torch.tensor(found), sparse(**other).logits, rtol=1e-4, atol=1e-5)


def altered(what: str) -> PreTrainedModel:
    """A model with blocks and a layer gone, with narrower blocks and a layer gone, with zeros, or with trees."""
    dense = tiny_model("bert")
    gone = {"layer.0.heads": torch.zeros(HEADS, dtype=torch.bool), "layer.1.neurons": torch.zeros(NEURONS) > 0}
    fewer = {"layer.0.heads": torch.arange(HEADS) != 1, "layer.1.neurons": torch.arange(NEURONS) < 5}
    zeros = copy.deepcopy(dense)
    with torch.no_grad():
        for name in encoder_linear_names(zeros):
            zeros.get_parameter(name)[:, ::2].zero_()
    made = {
        "gone": lambda: shrink(dense, gone, [2]),
        "fewer": lambda: shrink(dense, fewer, [2]),
        "zeros": lambda: zeros,
        "trees": lambda: convert_ffn(tiny_model("bert", num_hidden_layers=1), depth=2, trees=2).eval(),
    }
    return made[what]()


ROOT = Path(__file__).parents[1]
ALTERED = ("fewer", "trees")
# A layer with some heads and no neurons, a whole one, which looks at neighbours alone in ModernBERT, and an empty one.
EMPTY = {
    "layer.0.heads": torch.arange(HEADS) != 1,
    "layer.0.neurons": NO_NEURON,
    "layer.2.heads": NONE,
    "layer.2.neurons": NO_NEURON,
}


@pytest.mark.parametrize("runtime", [ONNX, OPENVINO], ids=lambda one: one.name)
@pytest.mark.parametrize("what", [*ARCHITECTURES, *ALTERED])
def test_the_runtime_gives_the_outputs_of_torch_for_other_shapes_too(what: str, runtime: WholeProgram):
    model = altered(what) if what in ALTERED else shrink(tiny_model(what), EMPTY)
    prepared = runtime.prepare(model, tiny_batch(rows=1))
    assert (prepared.dtype, prepared.module, prepared.any_shape, prepared.predicts) == ("float32", None, True, True)
    for rows, length in ((1, 12), (5, 9), (2, 31)):
        batch = tiny_batch(1, rows, length)
        with torch.no_grad():
            torch.testing.assert_close(prepared.run(batch), model(**batch)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", [ONNX_INT8, OPENVINO_INT8], ids=lambda one: one.name)
def test_products_of_8_bits_are_near(runtime: WholeProgram):
    """In a model without heads and neurons in some layers, which has no product of width zero."""
    model = tiny_model("bert", num_hidden_layers=1) if runtime is OPENVINO_INT8 else altered("gone")
    batch = tiny_batch(1, 8, 20)
    prepared = runtime.prepare(model, batch)
    with torch.no_grad():
        expected = model(**batch)[0]
    apart = float((prepared.run(batch) - expected).abs().max() / expected.abs().max())
    assert prepared.dtype == "int8" and 0 < apart < 0.3
    assert (runtime.calibrated, len(runtime.ways)) == ((True, 3) if runtime is OPENVINO_INT8 else (False, 1))


def test_openvino_computes_in_bfloat16_only_where_there_are_units():
    """Float32 is exact all the same, though OpenVINO would take bfloat16: the test of every family asks that."""
    units = program.openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    reason = OPENVINO_BF16.unavailable()
    assert (reason is None) == ("BF16" in units)
    if reason is not None:
        with pytest.raises(RuntimeUnavailableError, match="'openvino-bf16' is not available: this processor has no un"):
            OPENVINO_BF16.prepare(tiny_model("bert", num_hidden_layers=1), tiny_batch())


def test_a_packed_model_runs_as_the_dense_one_it_is_read_as(tmp_path: Path):
    model = shrink(altered("zeros"), {}, [1, 2])
    save_model(model, None, tmp_path, Packing())
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["packed.safetensors"]
    batch = tiny_batch(1)
    found = ONNX.prepare(load_model(tmp_path), batch).run(batch)
    with torch.no_grad():
        torch.testing.assert_close(found, model(**batch)[0], rtol=1e-4, atol=1e-5)


def test_it_runs_on_as_many_threads_as_torch_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked, make = [], onnxruntime.InferenceSession

    def session(file: Path, options: Any, **more: Any) -> Any:
        asked.append((file.parent.parent, options.intra_op_num_threads, more["providers"]))
        return make(file, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with torch_threads(2):
        ONNX.prepare(tiny_model("bert", num_hidden_layers=1), tiny_batch())
    assert asked == [(tmp_path, 2, ["CPUExecutionProvider"])]
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_programs_that_come_and_go_leave_signals_to_their_handlers(tmp_path: Path):
    """As torch handles the end of children, and export starts some beside the programs of NNCF."""
    script = f"""
import signal, subprocess
from pathlib import Path
import numpy as np
import openvino
from openvino import opset13 as ops
from sparsebert.runtimes.program import open_program
given = ops.parameter([-1, -1], np.int64, name="input_ids")
file = Path({str(tmp_path)!r}, "model.xml")
openvino.save_model(openvino.Model([ops.convert(given, "f32")], [given]), file)
first, second = (open_program("openvino", file, 1, "fp32") for _ in range(2))
del first, second
seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
subprocess.run(["true"], check=True)
assert seen, "no signal came"
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.process
def test_no_engine_sends_word_to_its_maker():
    """Neither where CI is not set, as on a user's machine, nor under pytest, which NNCF looks for."""
    script = """
import multiprocessing, os, sys
sys.path.insert(0, "tests")
from tiny import tiny_batch, tiny_model
from sparsebert.runtimes.openvino import OPENVINO_INT8
started = []
multiprocessing.Process.start = lambda self: started.append(self)
OPENVINO_INT8.prepare(tiny_model("bert", num_hidden_layers=1), tiny_batch())
print(len(started), os.environ.get("CI"), "pytest" in sys.modules)
"""
    surroundings = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    said = subprocess.run(
        [sys.executable, "-c", script], env=surroundings, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, "0 None False\n"), said.stderr


@pytest.mark.process
def test_bench_compares_its_outputs_and_speed_with_eager(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(station, "Remote", RemoteCopy)
    quick = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0}
    rows = bench({"a": tiny_model("bert", num_hidden_layers=1)}, [Setting(1, 8)], ["eager", "onnx"], **quick)
    row = rows[1]
    assert row.unavailable is None and [(t.scope, t.backend, t.dtype) for t in row.timings] == [
        ("model", "onnx", "float32")
    ]
    assert row.backend_speedup is not None and row.against_first_backend is not None
    assert row.against_first_backend.relative_difference < 1e-4 and row.against_first_backend.agreement == 1.0
    assert "".join(capsys.readouterr()) == ""


def test_what_cannot_be_exported_says_why(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model("bert", num_hidden_layers=1)

    def branching(self: Any, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x

    monkeypatch.setattr(type(model.dropout), "forward", branching)
    words = "The runtime 'onnx' is not available: the model cannot be exported: "
    with pytest.raises(RuntimeUnavailableError, match=words):
        ONNX.prepare(model, tiny_batch())


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    gone = ("onnxruntime", "openvino", "nncf")
    monkeypatch.setattr(program, "find_spec", lambda name: None if name in gone else find_spec(name))
    for runtime, missing, extra in (
        (ONNX, "onnxruntime", "onnx"),
        (OPENVINO, "openvino", "openvino"),
        (OPENVINO_INT8, "openvino, nncf", "openvino"),
    ):
        words = (
            rf"'{runtime.name}' is not available: not installed: {missing} \(pip install 'sparsebert\[{extra}\]'\)\.$"
        )
        with pytest.raises(RuntimeUnavailableError, match=words):
            runtime.prepare(tiny_model("bert"), tiny_batch())


def test_every_whole_program_has_a_name_of_the_registry_and_a_file_of_its_own():
    found = {name: registry.get("runtime", name) for name in registry.names("runtime")}
    whole = {name: one for name, one in found.items() if isinstance(one, WholeProgram)}
    assert list(whole) == ["onnx", "onnx-int8", "openvino", "openvino-bf16", "openvino-int8"]
    assert all(one.name == name for name, one in whole.items())
    # The program for bfloat16 is that of float32, run otherwise.
    assert len({one.file for one in whole.values()}) == len(whole) - 1
