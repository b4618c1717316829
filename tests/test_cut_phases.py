"""Phases that cut first what earlier ones pruned: smaller models in training, and the same outputs at the cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model
from sparsebert.models.surgeon import live_units
from sparsebert.recipe.load import load_recipe
from sparsebert.records import FILE_NAME, Record
from sparsebert.reports.film import read_film
from sparsebert.runs.run import run
from tiny import tiny_batch
from tiny_run import assert_refused, run_cli, save_tiny, write_task

UNITS = """
schema: 1
kind: train
task: mine
sparsity: 0.5
phases:
  - name: draw
    training: {max_steps: 4, batch_size: 16, learning_rate: 1.0e-3}
    rules:
      - {scope: [attention], structure: head, every: {steps: 1}}
      - {scope: [ffn], structure: neuron, every: {steps: 1}}
  - name: rest
    cuts: true
    training: {max_steps: 3, batch_size: 16, learning_rate: 1.0e-3}
"""
MORE = """
  - name: more
    cuts: true
    training: {max_steps: 4, batch_size: 16}
    rules:
      - {scope: [ffn], structure: neuron, every: {steps: 1}}
"""
QUICK = "measure: {timed: false}\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    save_tiny(folder / "base", "base")
    write_task(folder / "data")
    (folder / "units.yaml").write_text(UNITS + QUICK, encoding="utf-8")
    (folder / "more.yaml").write_text(UNITS + MORE + QUICK, encoding="utf-8")
    return folder


def trained(home: Path, name: str, *settings: str, recipe: str = "units.yaml") -> Record:
    given = {"model": str(home / "base"), "data": str(home / "data")}
    return run(load_recipe(home / recipe, list(settings), **given), home / name, "test")


def units(folder: Path) -> list[tuple[int, int]]:
    return [(layer.units["head"], layer.units["neuron"]) for layer in layout_of(load_model(folder)).layers]


def test_the_second_phase_trains_a_smaller_model(home: Path):
    record = trained(home, "cut")
    shape = record.models[-1].shape
    phases = [home / "cut" / "work" / name / "model" for name in ("phase0-draw", "phase1-rest")]
    before, after = map(units, phases)
    assert all(a < b and c < d for (a, c), (b, d) in zip(after, before, strict=True))
    assert after == list(zip(shape.heads, shape.neurons, strict=True))
    assert sum(shape.heads) * 2 == sum(heads for heads, _ in before)
    (film,) = read_film(home / "cut" / FILE_NAME, record.models[-1])
    assert film.phase == "draw" and film.steps.tolist() == [1, 2, 3, 4]
    assert film.pruned[-1] == pytest.approx(0.5) and film.went.sum() - film.returned.sum() == pytest.approx(0.5)


def test_the_heads_that_stayed_keep_their_numbers(home: Path):
    shape = trained(home, "numbers").models[-1].shape
    drawn = load_model(home / "numbers" / "work" / "phase0-draw" / "model")
    masks = live_units(drawn)
    groups = [layer.groups["head"].name for layer in layout_of(drawn).layers]
    assert shape.kept_heads == tuple(tuple(masks[name].nonzero().flatten().tolist()) for name in groups)


def test_the_cut_changes_no_output(home: Path):
    trained(home, "same", "phases.1.training.learning_rate=1.0e-12", "phases.1.training.weight_decay=0")
    batch = tiny_batch()
    with torch.no_grad():
        logits = [load_model(home / "same" / place)(**batch).logits for place in ("work/phase0-draw/model", "sparse")]
    assert torch.allclose(*logits, atol=1e-5)


def test_a_second_cut_goes_on_from_the_first(home: Path):
    once, twice = trained(home, "once").models[-1], trained(home, "twice", recipe="more.yaml").models[-1]
    assert twice.shape.heads == once.shape.heads and twice.shape.kept_heads == once.shape.kept_heads
    assert sum(twice.shape.neurons) * 2 == sum(once.shape.neurons)


def test_weights_may_return_to_the_first_ones_in_the_smaller_model(home: Path):
    record = trained(home, "reset", "phases.1.resets=true", "phases.1.training.learning_rate=1.0e-12")
    small, full = (load_model(home / place) for place in ("reset/sparse", "base"))
    [first] = [layer.groups["head"].inputs[0].tensor for layer in layout_of(small).layers[:1]]
    heads = record.models[-1].shape.kept_heads[0]
    width = full.config.hidden_size // full.config.num_attention_heads
    original = full.get_parameter(first.removeprefix(f"{small.base_model_prefix}."))
    rows = torch.cat([original[head * width : (head + 1) * width] for head in heads])
    assert torch.allclose(small.get_parameter(first), rows, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["phases.0.cuts=true"], ["draw", "no phase before it"]),
        (["phases.1.teacher=dense", "phases.1.distill.attention=1"], ["rest", "attention maps"]),
    ],
)
def test_what_cannot_be_cut_is_refused(home: Path, settings: list[str], expected: list[str]):
    given = ["--set", f"model={home / 'base'}", "--data", home / "data"]
    for setting in settings:
        given += ["--set", setting]
    said = run_cli("train", "--recipe", home / "units.yaml", *given, "-o", home / "none")
    assert_refused(said, expected)
    assert not (home / "none").exists()
