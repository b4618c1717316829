"""`finetune` of every form of a model: cut, packed, with trees, and with several of these at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from sparsebert.records import read_record
from tiny_run import run_cli, save_tiny, write_task


def cut(model: PreTrainedModel) -> PreTrainedModel:
    """Half of the heads and a third of the neurons of the first layer gone, the last layer dropped."""
    layout = layout_of(model)
    keep = {}
    for kind, part in (("head", 2), ("neuron", 3)):
        group = layout.layers[0].groups[kind]
        keep[group.name] = torch.arange(group.units) % part > 0
    return shrink(model, keep, drop_layers=[len(layout.layers) - 1])


def sparse(model: PreTrainedModel) -> PreTrainedModel:
    for name in encoder_linear_names(model):
        weight = model.get_parameter(name).data
        weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.7] = 0
    return model


FORMS = {
    "cut": (cut, None),
    "packed": (lambda model: shrink(sparse(model), {}), Packing()),
    "trees": (lambda model: convert_ffn(model, depth=2), None),
    "cut, then packed": (lambda model: sparse(cut(model)), Packing()),
    "cut, with trees": (lambda model: convert_ffn(cut(model), depth=2), None),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    save_tiny(folder / "tuned")
    write_task(folder / "data")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_any_form_learns_and_stays_of_that_form(home: Path, form: str):
    make, packing = FORMS[form]
    start = make(load_model(home / "tuned"))
    folder = home / form.replace(" ", "-")
    given = () if packing is None else (packing,)
    save_model(start, load_tokenizer(home / "tuned"), folder / "start", *given)
    quick = ("--set", "training.max_steps=4", "--set", "training.learning_rate=0.003", "--set", "measure.timed=false")
    data = ("--task", "mine", "--data", home / "data")
    said = run_cli("finetune", folder / "start", *data, *quick, "-o", folder / "run")
    assert said.exit_code == 0, said.output
    before, after = (load_model(folder / place) for place in ("start", "run/finetuned"))
    assert before.state_dict().keys() == after.state_dict().keys()
    assert len(trees_of(after)) == len(trees_of(before))
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    for name in encoder_linear_names(before):
        zeros, still = (model.get_parameter(name) == 0 for model in (before, after))
        assert torch.equal(zeros, still)
    [result] = read_record(folder / "run").models
    assert result.sparsity.encoder_linear == pytest.approx(0.7 if packing else 0, abs=0.03)
