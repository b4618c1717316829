"""What a sparse training is compared with: a dense model where there is one or one is asked for, else it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsebert import load_recipe
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model
from sparsebert.records import Record
from sparsebert.reports.families import families
from sparsebert.reports.rows import family_rows
from sparsebert.runs.run import run
from tiny_run import save_tiny, write_task

RECIPES = sorted((Path(__file__).parents[1] / "src" / "sparsebert" / "recipes").glob("*.yaml"))
STEPS = {"max_steps": 4, "batch_size": 16, "learning_rate": 1e-3}
PHASES = [
    {
        "name": "prune",
        "training": STEPS,
        "rules": [{"sparsity": 0.5, "every": {"steps": 1}}],
    }
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline")
    save_tiny(folder / "base", "base")
    save_tiny(folder / "tuned")
    write_task(folder / "data")
    return folder


def train(home: Path, model: str, name: str, *settings: str) -> Record:
    given = {"model": str(home / model), "task": "mine", "data": str(home / "data"), "phases": PHASES}
    recipe = load_recipe(None, ["measure.rounds=3", "dense.max_steps=3", *settings], **given)
    return run(recipe, home / name, "test")


def test_without_a_dense_model_the_record_says_what_is_missing_and_how_to_have_it(home: Path):
    record = train(home, "base", "alone")
    [sparse] = record.models
    assert any("No dense model was trained" in note and "--set baseline=true" in note for note in record.notes)
    # It is faster or slower than what it started from all the same.
    assert {timing.scope for timing in sparse.timings} == {"model", "encoder"}
    assert all(timing.speedup_low is not None or timing.rounds < 6 for timing in sparse.timings)
    assert family_rows(families([record]))[0].encoder_speedup is not None


def test_a_dense_model_is_trained_to_compare_with_where_it_is_asked_for(home: Path):
    record = train(home, "base", "asked", "baseline=true")
    dense, sparse = record.models
    assert dense.name == "dense" and dense.training is not None and dense.training.steps == 3
    assert not sparse.phases["prune"].teacher and not any("No dense model" in note for note in record.notes)
    assert dense.decisions and dense.decisions.agreement is None
    assert sparse.decisions and sparse.decisions.agreement is not None
    assert len(sparse.decisions.flips) == min(20, round(40 * (1 - sparse.decisions.agreement)))
    assert [score.baseline for score in sparse.scores] == [0.5, 0]
    change = family_rows(families([record]))[1].change_points
    assert change is not None
    assert change.mid == pytest.approx(100 * (sparse.scores[0].value - dense.scores[0].value))
    low, high = sparse.scores[0].change_low, sparse.scores[0].change_high
    assert low is not None and high is not None and low <= change.mid / 100 <= high


def test_a_model_that_is_fine_tuned_already_is_compared_with_as_it_is(home: Path):
    dense, sparse = train(home, "tuned", "tuned-run").models
    assert dense.name == "dense" and dense.training is None
    assert sparse.phases["prune"].steps == 4 and sparse.decisions and sparse.decisions.agreement is not None


@pytest.mark.parametrize("kind", ["train", "finetune"])
def test_zeros_that_are_released_are_no_negative_sparsity(kind: str, home: Path, tmp_path: Path):
    """Pruned while pretraining, free to learn again downstream, as information deletion is: nothing is removed then."""
    start = tmp_path / "pruned"
    model = load_model(save_tiny(start))
    with torch.no_grad():
        for name in encoder_linear_names(model):
            weight = model.get_parameter(name)
            weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.6] = 0
    model.save_pretrained(start)
    own = {"phases": [{"name": "free", "training": STEPS}]} if kind == "train" else {"hold_zeros": False}
    given = {"model": str(start), "task": "mine", "data": str(home / "data"), "kind": kind, **own}
    settings = ["measure.timed=false", *(["training.max_steps=4"] if kind == "finetune" else [])]
    record = run(load_recipe(None, settings, **given), tmp_path / "run", "test")
    result = record.models[-1]
    assert 0 <= result.sparsity.encoder_linear < 0.1 and 0 <= result.sparsity.whole_model < 0.1
    if kind == "train":
        assert record.models[0].sparsity.encoder_linear == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_measures_what_the_zeros_gain_in_time(file: Path):
    assert load_recipe(file).measure.timed
