"""A model that has zeros of its own: `compress` refuses it, and what `train` reports counts all of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model
from sparsebert.recipe.load import load_recipe
from sparsebert.runs.run import run
from test_recipes import TRAINED
from tiny_run import assert_refused, run_cli, save_tiny, write_task

PARTS = (1 / 32, 5 / 8)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sparse-start")
    write_task(folder / "data")
    for part in PARTS:
        model = load_model(save_tiny(folder / f"zeros-{part}"))
        with torch.no_grad():
            for name in encoder_linear_names(model):
                weight = model.get_parameter(name)
                weight.flatten()[torch.randperm(weight.numel())[: int(part * weight.numel())]] = 0
        model.save_pretrained(folder / f"zeros-{part}")
    (folder / "trained.yaml").write_text(TRAINED, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("part", "share"), [(PARTS[0], "3.1%"), (PARTS[1], "62.5%")])
def test_compressing_a_sparse_model_is_refused_before_anything_is_written(home: Path, part: float, share: str):
    given = ("--task", "mine", "--data", home / "data", "--sparsity", 0.7, "-o", home / "out")
    said = run_cli("compress", home / f"zeros-{part}", *given)
    assert_refused(said, ["fill in its zeros", f"got {share} of the encoder's weights are zero", "sparsebert train"])
    assert not (home / "out").exists()


def test_the_sparsity_of_a_training_counts_the_zeros_that_its_start_had(home: Path):
    model = str(home / f"zeros-{PARTS[1]}")
    settings = ["phases.0.rules.0.scope=[attention]"]
    record = run(
        load_recipe(home / "trained.yaml", settings, model=model, data=str(home / "data")), home / "run", "test"
    )
    found = record.models[-1].sparsity
    start, after = load_model(home / f"zeros-{PARTS[1]}"), load_model(home / "run" / "sparse")
    linear = [after.get_parameter(name) for name in encoder_linear_names(after)]
    nonzero = sum(int(weight.count_nonzero()) for weight in linear)
    everywhere = int(parameters_to_vector(after.parameters()).count_nonzero())
    assert found.encoder_linear == pytest.approx(1 - nonzero / sum(weight.numel() for weight in linear))
    assert found.whole_model == pytest.approx(1 - everywhere / start.num_parameters())
    # Attention is half zeros by its rule; the feedforward matrices, without one, have filled in theirs.
    attention = sum(weight.numel() for weight in linear if weight.shape == (32, 32)) / sum(map(torch.numel, linear))
    assert found.encoder_linear == pytest.approx(attention / 2, abs=0.01)
