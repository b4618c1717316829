"""Models in wrappers, under adapters or quantised: what they are is said, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.accelerate import accelerate
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.surgeon import convert_ffn, mask_model, shrink
from sparsebert.recipe.schema import Rule
from sparsebert.training.trainer import SparseTrainer
from test_trainer_script import ROWS, arguments, collate
from tiny import FAMILIES, tiny_model

QUERY = "bert.encoder.layer.1.attention.self.query"


class Adapted(nn.Module):
    """A linear layer under an adapter, named as in PEFT."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.lora_a = base_layer, nn.Linear(base_layer.in_features, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x)


def with_layer(make: Callable[[nn.Linear], nn.Module]) -> Callable[[], nn.Module]:
    def changed() -> nn.Module:
        model = tiny_model("bert", num_labels=2)
        query = model.get_submodule(QUERY)
        assert isinstance(query, nn.Linear)
        model.set_submodule(QUERY, make(query))
        return model

    return changed


def integers(linear: nn.Linear) -> nn.Linear:
    linear.weight = nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)
    return linear


def in_peft() -> nn.Module:
    model = nn.Sequential(tiny_model("bert", num_labels=2))
    kind = type("PeftModelForSequenceClassification", (nn.Sequential,), {"__module__": "peft.peft_model"})
    return kind(*model)


def parametrized(linear: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(linear, "weight", nn.Identity())
    return linear


def named_quantised() -> PreTrainedModel:
    model = tiny_model("bert", num_labels=2)
    model.config.quantization_config = {"quant_method": "torchao"}
    return model


WRAPPED = {
    "compiled": (lambda: torch.compile(tiny_model("bert", num_labels=2)), "got OptimizedModule; give model._orig_mod"),
    "in parallel": (lambda: nn.DataParallel(tiny_model("bert", num_labels=2)), "got DataParallel; give model.module"),
    "PEFT": (in_peft, "got PeftModelForSequenceClassification; give the model that model.merge_and_unload() gives"),
    "in a module of one's own": (
        lambda: nn.Sequential(tiny_model("bert", num_labels=2)),
        "got Sequential; give the model of transformers inside",
    ),
}
CHANGED = {
    "adapters": (with_layer(Adapted), "got Adapted; give the model that model.merge_and_unload() gives"),
    "integers": (with_layer(integers), "got Linear of torch.int8; give the model as it was before it was quantised"),
    "quantised": (named_quantised, "give the model as it was before it was quantised"),
    "replaced": (
        with_layer(lambda linear: nn.Sequential(linear)),
        "got Sequential; give the model as it was before its layers were replaced",
    ),
    "pruned by torch": (
        with_layer(lambda linear: prune.l1_unstructured(linear, "weight", 0.5)),
        "got Linear; make it plain: torch.nn.utils.prune.remove(layer, 'weight')",
    ),
    "parametrised": (with_layer(parametrized), "make it plain: torch.nn.utils.parametrize.remove_parametrizations"),
}


@pytest.mark.parametrize("name", [*WRAPPED, *CHANGED])
def test_what_the_model_is_and_what_to_do_is_said(name: str, tmp_path: Path):
    make, words = (WRAPPED | CHANGED)[name]
    asked = [
        scope_names,
        accelerate,
        lambda model: shrink(model, {}),
        lambda model: mask_model(model, {}),
        *([layout_of] if name in WRAPPED else []),
    ]
    for ask in asked:
        with pytest.raises(UserError) as said:
            ask(make())
        assert words in str(said.value)
    if name != "quantised":
        given = {"train_dataset": ROWS, "data_collator": collate, "rules": [Rule(sparsity=0.5)]}
        with pytest.raises(UserError) as said:
            SparseTrainer(make(), arguments(tmp_path), **given)
        assert words in str(said.value) and "did you mean" not in str(said.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_models_are_not_refused(family: str):
    for dtype in (torch.float32, torch.bfloat16):
        assert scope_names(tiny_model(family).to(dtype))["attention"]
    assert scope_names(convert_ffn(tiny_model(family), depth=2))["attention"]
    for name in ("layer.1.heads", "layer.1.neurons"):
        units = layout_of(tiny_model(family)).group(name).units
        assert scope_names(shrink(tiny_model(family), {name: torch.zeros(units, dtype=torch.bool)}))["attention"]
