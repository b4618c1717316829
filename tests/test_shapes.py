"""Which heads stayed: their numbers in the model that a run began with, through all that were cut from it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model
from sparsebert.models.surgeon import shrink
from sparsebert.pruning.calibration import calibrate
from sparsebert.pruning.shapes import head_importance, heads_left, shape_of
from sparsebert.records import ModelResult, Record, read_record
from tiny import HEADS, HIDDEN, LAYERS, tiny_model
from tiny_run import QUICK, run_cli, save_tiny, write_task
from toy import toy_collate, toy_rows

ALL = tuple(range(HEADS))
QUERY = "bert.encoder.layer.{}.attention.self.query.weight"


def only(*heads: int, of: int = HEADS) -> torch.Tensor:
    return torch.tensor([head in heads for head in range(of)])


def test_numbers_of_heads_are_those_of_the_first_model():
    model = tiny_model("bert")
    first = heads_left(model, {"layer.0.heads": only(1, 2, 3), "layer.2.heads": only(0, 3)}, [1])
    assert first == ((1, 2, 3), (0, 3))
    small = shrink(model, {"layer.0.heads": only(1, 2, 3), "layer.2.heads": only(0, 3)}, [1])
    second = heads_left(small, {"layer.0.heads": only(0, 2, of=3), "layer.1.heads": only(of=2)}, (), first)
    assert second == ((1, 3), ())
    smaller = shrink(small, {"layer.0.heads": only(0, 2, of=3), "layer.1.heads": only(of=2)})
    assert shape_of(smaller, (0, 2), model, second).kept_heads == ((1, 3), (), ())
    assert heads_left(smaller, {}, (), second) == second


def test_heads_are_known_without_being_told_only_where_none_is_gone():
    model = tiny_model("bert")
    assert shape_of(model, range(LAYERS), model).kept_heads == (ALL,) * LAYERS
    assert shape_of(shrink(model, {}, [1]), (0, 2), model).kept_heads == (ALL, (), ALL)
    fewer = shrink(model, {"layer.0.heads": only(1)})
    assert shape_of(fewer, range(LAYERS), model).kept_heads == ()


def test_a_head_that_goes_earlier_is_less_important():
    model, rows = tiny_model("bert"), toy_rows(8)
    calibrated = calibrate(model, model, rows, toy_collate, "magnitude", 8, 8, seed=0)
    shape = shape_of(model, range(LAYERS), model)
    found = head_importance(calibrated.layout, calibrated.candidates, (ALL,) * LAYERS, range(LAYERS), shape)
    for layer, scores in enumerate(found):
        candidates = calibrated.candidates[f"layer.{layer}.heads"]
        kept = [set(candidates[count].units.tolist()) for count in range(HEADS, -1, -1)]
        order = [(before - after).pop() for before, after in pairwise(kept)]
        assert scores[order[0]] < scores[order[-1]]
        assert [scores[head] for head in order] == sorted(scores)
        assert max(scores) == pytest.approx(max(option.error for option in candidates.values()))


def test_importance_stands_at_the_places_of_the_first_model():
    model, rows = tiny_model("bert"), toy_rows(8)
    keep = {"layer.0.heads": only(1, 3)}
    small = shrink(model, keep, [1])
    calibrated = calibrate(small, model, rows, toy_collate, "magnitude", 8, 8, seed=0)
    full = shape_of(model, range(LAYERS), model)
    found = head_importance(
        layout_of(small), calibrated.candidates, heads_left(small, {}, (), ((1, 3), ALL)), (0, 2), full
    )
    assert [value > 0 for value in found[0]] == [False, True, False, True]
    assert found[1] == (0.0,) * HEADS and min(found[2]) > 0


def heads_of(folder: Path, model: ModelResult) -> list[torch.Tensor]:
    """The query weights of each layer's heads [heads, size, hidden]."""
    loaded = load_model(folder / model.folder)
    return [
        loaded.get_parameter(QUERY.format(layer)).detach().reshape(-1, HIDDEN // HEADS, HIDDEN)
        for layer, there in enumerate(layout_of(loaded).layers)
        if there.units["head"]
    ]


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> tuple[Path, Record]:
    """Members that are hardly trained, each from the last, so that weights say which head is which."""
    home = tmp_path_factory.mktemp("places")
    tuned, data = save_tiny(home / "tuned"), write_task(home / "data")
    candidates = ("--sparsity", 0.4, "--sparsity", 0.6, "--sparsity", 0.8, "--max-length", 8)
    slow = ("--set", "finetune.max_steps=1", "--set", "finetune.learning_rate=1e-12", "--set", "measure.timed=false")
    out = home / "out"
    said = run_cli("compress", tuned, "--task", "mine", "--data", data, "-o", out, *QUICK, *candidates, *slow)
    assert said.exit_code == 0, said.output
    return out, read_record(out)


def test_a_record_names_the_heads_whose_weights_stayed(record: tuple[Path, Record]):
    folder, run = record
    dense = heads_of(folder, run.models[0])
    assert run.models[0].shape.kept_heads == (ALL,) * LAYERS
    sizes = set()
    for model in run.models[1:]:
        assert [len(kept) for kept in model.shape.kept_heads] == list(model.shape.heads)
        named = [dense[layer][list(kept)] for layer, kept in enumerate(model.shape.kept_heads) if kept]
        for there, expected in zip(heads_of(folder, model), named, strict=True):
            assert torch.allclose(there, expected, atol=1e-6)
        assert len(model.shape.head_importance) == LAYERS
        sizes.add(sum(model.shape.heads))
    assert len(sizes) > 1
    last = run.models[-1].shape
    assert any(kept not in ((), ALL, ALL[: len(kept)]) for kept in last.kept_heads)


def test_a_training_that_leaves_dead_heads_names_the_living(tmp_path: Path):
    tuned, data = save_tiny(tmp_path / "tuned"), write_task(tmp_path / "data")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "task: mine\nmax_length: 8\nmeasure: {timed: false}\nphases:\n- name: p\n"
        "  training: {max_steps: 4, batch_size: 8}\n"
        "  rules: [{scope: [attention], structure: head, sparsity: 0.5, start: {steps: 0}, stop: {steps: 2}, "
        "every: {steps: 1}}]\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    said = run_cli("train", tuned, "--recipe", recipe, "--data", data, "-o", out)
    assert said.exit_code == 0, said.output
    shape = read_record(out).models[-1].shape
    assert shape.heads != (HEADS,) * LAYERS and [len(kept) for kept in shape.kept_heads] == list(shape.heads)
    assert any(kept not in ((), ALL) for kept in shape.kept_heads)
