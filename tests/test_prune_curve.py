"""`sparsebert prune-curve`: points, their numbers, the record, the report, going on, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import sparsebert
from sparsebert.files import digests
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.source import disk_bytes
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from sparsebert.pruning.successive import l1_scores, lowest_of_all, without_layers, without_weights
from sparsebert.records import PruneCurve, PruneStudy, Record, read_record
from sparsebert.runs.curve_points import bytes_as_saved
from sparsebert.runs.sparse_model import save_sparse
from tiny_run import assert_refused, run_cli, save_tiny, write_task

QUICK = ("--steps", "0,0.5,0.9", "--loss-examples", "32", "--set", "measure.rounds=3", "--set", "measure.length=8")
UNTIMED = ("--steps", "0.5", "--loss-examples", "32", "--set", "measure.timed=false")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned model, others that cannot be taken, a task, and one whole run."""
    folder = tmp_path_factory.mktemp("prune-curve")
    save_tiny(folder / "tuned")
    save_tiny(folder / "base", "base")
    save_tiny(folder / "flat", num_hidden_layers=1)
    write_task(folder / "data")
    prune_curve(folder, "whole-run", *QUICK, pictures=True)
    return folder


def prune_curve(home: Path, name: str, *options: object, model: str = "tuned", pictures: bool = False) -> Record:
    given = ("prune-curve", home / model, "--task", "mine", "--data", home / "data", "-o", home / name, *options)
    said = run_cli(*given, pictures=pictures)
    assert said.exit_code == 0, said.output
    return read_record(home / name)


def study_of(record: Record) -> PruneStudy:
    [model] = record.models
    assert model.prune_study is not None
    return model.prune_study


def curve_of(record: Record, name: str) -> PruneCurve:
    return {one.name: one for one in study_of(record).curves}[name]


def test_the_record_holds_every_point(home: Path):
    record = read_record(home / "whole-run")
    assert (record.kind, record.models[0].name) == ("prune-curve", "whole")
    assert [one.name for one in study_of(record).curves] == ["unstructured-l1", "layers-loss"]
    weights, layers = study_of(record).curves
    assert [point.asked for point in weights.points] == [0, 0.5, 0.9]
    assert [len(point.skipped_layers) for point in layers.points] == [0, 1, 2]
    order = tuple(one.layer for one in layers.ranking)
    assert [point.skipped_layers for point in layers.points] == [(), order[:1], order[:2]]
    for point in (*weights.points, *layers.points):
        assert {(one.metric, one.split) for one in point.scores} == {
            (metric, split) for metric in ("accuracy", "matthews", "macro_f1") for split in ("validation", "train")
        }
        assert {one.examples for one in point.scores} == {40, 64}
        assert set(point.losses) == {"validation", "train"}
        assert {time.scope for time in point.timings} == {"model", "encoder"}
    assert weights.points[1].timings[0].speedup is not None
    assert weights.points[0].scores[0].value == record.models[0].scores[0].value


def test_sparsities_are_those_of_what_is_left(home: Path):
    record = read_record(home / "whole-run")
    model = load_model(home / "tuned")
    encoder = sum(model.get_parameter(name).numel() for name in encoder_linear_names(model))
    whole = sum(parameter.numel() for parameter in model.parameters())
    for point in curve_of(record, "unstructured-l1").points:
        removed = round((point.asked or 0) * encoder)
        assert point.sparsity.encoder_linear == pytest.approx(removed / encoder, abs=1e-9)
        assert point.sparsity.whole_model == pytest.approx(removed / whole, abs=2e-4)
    for count, point in enumerate(curve_of(record, "layers-loss").points):
        assert point.sparsity.encoder_linear == pytest.approx(count / 3)
        small = without_layers(model, point.skipped_layers)
        left = sum(int(parameter.count_nonzero()) for parameter in small.parameters())
        assert point.sparsity.whole_model == pytest.approx(1 - left / whole)


def test_bytes_are_those_that_saving_takes(home: Path, tmp_path: Path):
    model, tokenizer = load_model(home / "tuned"), load_tokenizer(home / "tuned")
    for share in (0.0, 0.8):
        for name in encoder_linear_names(model):
            weight = model.get_parameter(name).data
            weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < share] = 0
        save_sparse(model, tokenizer, tmp_path / f"{share}", Packing(), packed=True)
        assert bytes_as_saved(model) == pytest.approx(disk_bytes(tmp_path / f"{share}"), rel=0.01)
    assert bytes_as_saved(model) < 0.8 * disk_bytes(home / "tuned")


def test_the_given_network_stays_as_it_was_and_a_finished_run_is_only_read(home: Path):
    before = digests([home / "tuned"], home)
    first = read_record(home / "whole-run")
    assert prune_curve(home, "whole-run", *QUICK) == first
    assert digests([home / "tuned"], home) == before
    assert digests([home / "whole-run" / "whole"], home)


def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(home: Path):
    first = prune_curve(home, "first", *UNTIMED)
    shutil.copytree(home / "first", home / "again")
    for name in ("record.json", "report.html", "work/layers-loss-1.json", "work/ranking-loss.json"):
        (home / "again" / name).unlink()
    kept = (home / "again" / "work" / "unstructured-l1-1.json").stat().st_mtime_ns
    assert study_of(prune_curve(home, "again", *UNTIMED)) == study_of(first)
    assert (home / "again" / "work" / "unstructured-l1-1.json").stat().st_mtime_ns == kept


def test_one_criterion_for_both_and_greedy(home: Path):
    record = prune_curve(home, "same", "--criteria", "l1,loss", "--greedy", *UNTIMED)
    names = [one.name for one in study_of(record).curves]
    assert names == ["unstructured-l1", "unstructured-loss", "layers-l1", "layers-loss"]
    assert [one.greedy for one in study_of(record).curves] == [False, False, False, True]
    by_size = curve_of(record, "layers-l1").ranking
    assert [one.value for one in by_size] == sorted(one.value for one in by_size)
    assert len(curve_of(record, "layers-loss").ranking) == 2


def test_all_matrices_may_be_in_scope(home: Path):
    record = prune_curve(home, "all", "--methods", "unstructured", "--scope", "all", *UNTIMED)
    assert curve_of(record, "unstructured-l1").points[-1].sparsity.whole_model == pytest.approx(0.5, abs=0.05)


def test_a_network_of_one_layer_still_loses_single_weights(home: Path):
    record = prune_curve(home, "flat-run", "--methods", "unstructured", *UNTIMED, model="flat")
    assert len(study_of(record).curves) == 1


@pytest.mark.parametrize("form", ["shrunk", "trees", "packed"])
def test_every_form_of_a_network_is_taken(home: Path, tmp_path: Path, form: str):
    model, tokenizer = load_model(home / "tuned"), load_tokenizer(home / "tuned")
    if form == "shrunk":
        save_model(
            shrink(model, {"layer.0.heads": torch.tensor([True, False, True, False])}), tokenizer, tmp_path / form
        )
    elif form == "trees":
        save_model(convert_ffn(model, depth=2), tokenizer, tmp_path / form)
    else:
        names = encoder_linear_names(model)
        masked = without_weights(model, lowest_of_all(l1_scores(model, names), 0.7))
        save_sparse(masked, tokenizer, tmp_path / form, Packing(), packed=True)
        assert (tmp_path / form / "packed.safetensors").is_file()
    given = ("--criteria", "l1,loss", *UNTIMED)
    curves = study_of(prune_curve(home, f"form-{form}", *given, model=str(tmp_path / form))).curves
    assert [len(one.points) for one in curves] == [2, 2, 3, 3]
    start, half = (point.sparsity.encoder_linear for point in curves[0].points)
    # Zeros that were there before count, and go first.
    assert (start, half) == pytest.approx((0.7, 0.7) if form == "packed" else (0.0, 0.5), abs=0.01)


def test_json_and_the_table(home: Path):
    given = ("prune-curve", home / "tuned", "--task", "mine", "--data", home / "data", "-o", home / "whole-run", *QUICK)
    said = json.loads(run_cli(*given, "--json").stdout)
    assert [curve["method"] for curve in said["curves"]] == ["unstructured", "layers"]
    assert set(said["curves"][0]["no_drop_up_to"]) == {"accuracy", "matthews", "macro_f1"}
    assert len(said["curves"][0]["points"]) == 3
    shown = run_cli(*given).stdout
    assert "single weights by |w|" in shown and "layers by rise of the loss" in shown


def test_the_report_has_the_pictures(home: Path):
    folder = home / "whole-run"
    assert {"prune-curve.png", "prune-speed.png", "weights.png"} <= {file.name for file in (folder / "plots").iterdir()}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where it begins to lose" in page and "How the weights are spread" in page
    assert "50% of the weights" in page


def test_models_are_kept_where_that_is_asked_for(home: Path):
    record = prune_curve(home, "kept", "--methods", "layers", "--keep-models", *UNTIMED)
    whole, one, two = curve_of(record, "layers-loss").points
    assert (whole.folder, one.folder, two.folder) == (None, "layers-loss-1", "layers-loss-2")
    small = load_model(home / "kept" / "layers-loss-2")
    assert small.config.kept_layers == [layer for layer in range(3) if layer not in two.skipped_layers]
    assert disk_bytes(home / "kept" / "layers-loss-2") == pytest.approx(two.bytes_on_disk, rel=0.01)


def test_from_python(home: Path, tmp_path: Path):
    given = {"data": home / "data", "output": tmp_path / "out", "measure": {"timed": False}, "progress": False}
    result = sparsebert.prune_curve(home / "tuned", methods=["layers"], criteria=["l1"], **given)
    assert [one.name for one in study_of(result.record).curves] == ["layers-l1"]


BAD = {
    "The model is not fine-tuned for the task mine": ("base",),
    "The network has one layer, so there is none to remove": ("flat",),
    "each is a part of the weights, from 0 to below 1, got 0, 1": ("tuned", "--steps", "0,1"),
    "they must rise, got 0.5, 0.2": ("tuned", "--steps", "0.5,0.2"),
    "steps.0: Input should be a valid number": ("tuned", "--steps", "half"),
    "Input should be 'unstructured' or 'layers', got heads": ("tuned", "--methods", "heads"),
    "Input should be 'l1' or 'loss', got l2": ("tuned", "--criteria", "l2"),
    "each may stand there once, got layers, layers": ("tuned", "--methods", "layers,layers"),
    "greedy ranks layers by the loss": ("tuned", "--greedy", "--criteria", "l1"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(home: Path, said: str):
    model, *options = BAD[said]
    given = ("prune-curve", home / model, "--task", "mine", "--data", home / "data", "-o", home / "bad", *options)
    assert_refused(run_cli(*given), [said])
    assert not (home / "bad").exists()
