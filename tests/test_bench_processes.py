"""Several runtimes in one benchmark: each in a process of its own, with the same models, threads and cores."""

from __future__ import annotations

import copy
import json
import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsebert.cli.bench_tables import print_rows
from sparsebert.errors import UserError
from sparsebert.measurement.bench import bench
from sparsebert.measurement.setting import Setting
from sparsebert.measurement.station import Here
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model
from sparsebert.models.parcel import Parcel, parcel, unpacked
from sparsebert.models.surgeon import convert_ffn, shrink
from tiny import FAMILIES, HEADS, tiny_batch, tiny_model

QUICK = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0}
SMALL = Setting(batch=2, length=8)
# A module of the user's own: what a runtime finds around it goes into a file, and one dies of its third call.
WATCHED = """
import dataclasses, gc, json, os, pathlib, signal, torch
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import Runtime

class Watched(Runtime):
    def __init__(self, dies):
        self.dies, self.calls = dies, 0

    def prepare(self, model, inputs):
        ready = EAGER.prepare(model, inputs)

        def run(given):
            self.calls += 1
            if self.dies and self.calls > 2:
                os.kill(os.getpid(), signal.SIGKILL)
            found = {"pid": os.getpid(), "threads": torch.get_num_threads(), "cores": sorted(os.sched_getaffinity(0))}
            found |= {"gc": gc.isenabled(), "inference": torch.is_inference_mode_enabled()}
            pathlib.Path(f"{os.getpid()}.json").write_text(json.dumps(found))
            return ready.run(given)

        return dataclasses.replace(ready, run=run)

ONE, DIES = Watched(False), Watched(True)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "watched.py").write_text(WATCHED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.process
def test_each_runtime_has_a_process_with_the_same_threads_and_cores(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    dense = tiny_model("bert", num_hidden_layers=1, attn_implementation="eager").train()
    names = ["compile", "watched:ONE"]
    rows = bench({"a": dense, "b": copy.deepcopy(dense)}, [SMALL], names, threads=2, **QUICK)
    found = [json.loads(file.read_text()) for file in here.glob("*.json")]
    assert [one.pop("pid") != os.getpid() for one in found] == [True]
    assert found == [{"threads": 2, "cores": sorted(os.sched_getaffinity(0)), "gc": False, "inference": True}]
    assert [(row.backend, row.model) for row in rows] == [(name, model) for name in names for model in "ab"]
    assert [row.unavailable for row in rows[:2]] == ["no C++ compiler found (no-such-compiler)"] * 2
    assert [row.timings[0].attention for row in rows[2:]] == ["eager"] * 2
    assert [row.timings[0].threads for row in rows[2:]] == [2] * 2
    # The first runtime ran nothing to compare with.
    assert all(row.backend_speedup is row.against_first_backend is None for row in rows)
    assert rows[3].against_baseline is not None and rows[3].against_baseline.largest_difference == 0
    assert dense.training
    print_rows(rows, [])
    count = len(os.sched_getaffinity(0))
    words = (
        f"Where: each runtime in a process of its own, one at a time; threads 2, on the {count} cores that a process"
    )
    assert words in capsys.readouterr().out


@pytest.mark.process
def test_a_runtime_whose_process_dies_is_named_and_no_process_is_left(here: Path):
    words = r"^The runtime 'watched:DIES' lost its process: SIGKILL, perhaps for want of memory\.$"
    with pytest.raises(UserError, match=words):
        bench({"a": tiny_model("bert")}, [SMALL], ["watched:ONE", "watched:DIES"], **QUICK)
    pids = [int(file.stem) for file in here.glob("*.json")]
    assert len(pids) == 2 and all(map(is_gone, pids))


def test_one_runtime_runs_in_this_process(here: Path, capsys: pytest.CaptureFixture[str]):
    rows = bench({"a": tiny_model("bert")}, [SMALL], ["watched:ONE"] * 2, threads=1, **QUICK)
    assert [file.stem for file in here.glob("*.json")] == [str(os.getpid())] and len(rows) == 1
    print_rows(rows, [])
    assert f"Where: threads 1, on the {len(os.sched_getaffinity(0))} cores" in capsys.readouterr().out


def test_what_no_model_can_take_is_told_before_any_process_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.executable", "no-such-python")
    models = {"a": tiny_model("bert")}
    with pytest.raises(UserError, match="no positions for that length; got 65"):
        bench(models, [SMALL, Setting(1, 65)], ["eager", "eager-bf16"])
    with pytest.raises(UserError, match="Unknown runtime 'eagr'"):
        bench(models, [SMALL], ["eager", "eagr"])


def test_a_setting_that_follows_is_prepared_with_autograd_and_the_collector_on():
    model = tiny_model("bert")
    station, states = Here("eager", {"a": model}), []
    batch = {name: ids.numpy() for name, ids in tiny_batch().items()}
    station.prepare({"a": [batch]})
    assert torch.is_inference_mode_enabled() and len(model.bert.encoder.layer[0]._forward_pre_hooks) == 1
    station._prepared = lambda *_: states.append(torch.is_inference_mode_enabled()) or "no"
    assert station.prepare({"a": [batch]}) == {"a": "no"} and states == [False]
    station.close()
    assert not torch.is_inference_mode_enabled() and not model.bert.encoder.layer[0]._forward_pre_hooks


def made(what: str, folder: Path) -> nn.Module:
    """A model of a family, or one that loading would make otherwise."""
    dense = tiny_model("bert")
    if what in FAMILIES:
        return tiny_model(what)
    if what == "tied":
        return tiny_model("bert", "masked_lm").to(torch.bfloat16)
    if what == "trees":
        model = convert_ffn(dense, depth=3, trees=2).train()
        # As some models hold what they need, as neither a weight nor a buffer.
        model.beside = torch.arange(3.0)
        return model
    small = shrink(dense, {"layer.0.heads": torch.arange(HEADS) != 1}, [2])
    small.save_pretrained(folder)
    return load_model(folder, attention="eager")


def tensors_of(model: nn.Module) -> list[torch.Tensor]:
    places = [place for one in model.modules() for place in (one._parameters, one._buffers, vars(one))]
    return [value for place in places for value in place.values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("what", [*FAMILIES, "tied", "trees", "shrunk"])
def test_a_model_reaches_another_process_as_it_is(what: str, tmp_path: Path):
    model = made(what, tmp_path / "saved")
    before = copy.deepcopy(model)
    parcelled = ForkingPickler.loads(bytes(ForkingPickler.dumps(parcel(model, tmp_path / "tensors"))))
    assert isinstance(parcelled, Parcel) and (tmp_path / "tensors").stat().st_size > sum(
        parameter.nbytes for parameter in model.parameters()
    )
    assert [tensor.numel() for tensor in tensors_of(parcelled.model) if tensor.numel()] == []
    found = unpacked(parcelled)
    assert type(found) is type(model) and found.training == model.training and found.dtype == model.dtype
    assert found.config._attn_implementation == model.config._attn_implementation
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        expected, got = dict(kind(before, remove_duplicate=False)), dict(kind(found, remove_duplicate=False))
        assert expected.keys() == got.keys()
        assert all(torch.equal(value, got[name]) and value.dtype == got[name].dtype for name, value in expected.items())
    assert all(map(torch.equal, tensors_of(before), tensors_of(found)))
    # Names that were one tensor are one again, and weights are weights.
    assert [type(one) for one in found.parameters()] == [nn.Parameter for one in model.parameters()]
    with torch.no_grad():
        batch = tiny_batch()
        assert torch.equal(found.eval()(**batch)[0], model.eval()(**batch)[0])
    assert encoder_linear_names(found) == encoder_linear_names(model)
