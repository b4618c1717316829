"""A shrunk model is just a model: saved, reloaded by the Auto classes, exact, and smaller on disk."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from sparsebert import __version__
from sparsebert.errors import UserError
from sparsebert.models import shrunk
from sparsebert.models.families import BERT, HeadName
from sparsebert.models.surgeon import shrink
from test_surgeon import outputs, random_keep
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, tiny_batch, tiny_model

AUTO = {"base": AutoModel, "classification": AutoModelForSequenceClassification, "masked_lm": AutoModelForMaskedLM}


@pytest.mark.parametrize("task", list(AUTO))
@pytest.mark.parametrize("family", FAMILIES)
def test_reload_is_exact_in_plain_files_that_are_smaller(family: str, task: HeadName, tmp_path: Path):
    model = tiny_model(family, task)
    small = shrink(model, random_keep(model), drop_layers=[0])
    model.save_pretrained(tmp_path / "dense")
    small.save_pretrained(tmp_path / "small")
    files = {file.name for file in (tmp_path / "small").iterdir()}
    assert files == {"config.json", "model.safetensors", "modeling_sparsebert.py", "places_sparsebert.py"}
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("dense", "small")]
    assert sizes[0] - sizes[1] > 0.9 * 4 * (model.num_parameters() - small.num_parameters()) > 0
    again = AUTO[task].from_pretrained(tmp_path / "small").eval()
    assert type(again) is type(small)
    assert torch.equal(outputs(again), outputs(small))
    assert again.config.to_diff_dict() == small.config.to_diff_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_lm_weights_stay_tied(family: str, tmp_path: Path):
    model = tiny_model(family, "masked_lm")
    small = shrink(model, random_keep(model))
    small.save_pretrained(tmp_path)
    for one in (small, AutoModelForMaskedLM.from_pretrained(tmp_path)):
        assert one.get_output_embeddings().weight is one.get_input_embeddings().weight


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_and_eager_attention_load(family: str, tmp_path: Path):
    model = tiny_model(family)
    small = shrink(model, random_keep(model))
    small.save_pretrained(tmp_path)
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(outputs(half).float(), outputs(small), atol=0.1, rtol=0.1)
    eager = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager")
    assert eager.config._attn_implementation == "eager"
    torch.testing.assert_close(outputs(eager), outputs(small), atol=1e-5, rtol=1e-5)


def test_the_configuration_carries_the_whole_map(tmp_path: Path):
    model = tiny_model("distilbert")
    keep = {"layer.0.heads": torch.arange(HEADS) < 1, "layer.2.neurons": torch.zeros(NEURONS, dtype=torch.bool)}
    shrink(model, keep, drop_layers=[1]).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert {name: values[name] for name in ("model_type", "n_layers", *shrunk.SHAPE_FIELDS)} == {
        "model_type": "sparsebert-distilbert",
        "n_layers": 2,
        "layer_heads": [1, HEADS],
        "layer_neurons": [NEURONS, 0],
        "kept_layers": [0, 2],
        "head_size": 8,
        "original_layers": LAYERS,
        "original_heads": HEADS,
        "original_neurons": NEURONS,
        "original_hidden": HIDDEN,
        "kept_hidden": [],
        "layer_fff": [[], []],
        "fff_activation": "gelu",
        "fff_soft": False,
        "fff_hardening": 0.0,
        "fff_balance": 0.0,
    }


def test_classes_are_named_after_the_stock_ones_and_can_be_pickled():
    assert shrunk.SparseModernBertForMaskedLM.__name__ == "SparseModernBertForMaskedLM"
    config = shrunk.SparseBertConfig(num_hidden_layers=2, layer_heads=[3, 0])
    assert pickle.loads(pickle.dumps(config)).layer_heads == [3, 0]
    assert config.layer_neurons == [3072, 3072]
    with pytest.raises(AttributeError, match="SparseGpt2Model"):
        _ = shrunk.SparseGpt2Model


def test_a_configuration_that_contradicts_itself_is_refused():
    with pytest.raises(UserError, match="layer_heads must have one entry a layer; got 3 entries for 2 layers"):
        shrunk.config_class(BERT)(num_hidden_layers=2, layer_heads=[1, 2, 3])


def test_hidden_states_of_all_layers_are_given():
    model = tiny_model("bert")
    small = shrink(model, random_keep(model), drop_layers=[0])
    found = small(**tiny_batch(), output_hidden_states=True).hidden_states
    assert len(found) == LAYERS


@pytest.mark.process
@pytest.mark.parametrize(
    "imports",
    [
        # The stock configuration imports the Auto tables while it is still being executed itself.
        "import sparsebert; from transformers import BertConfig",
        "import transformers.models.auto.modeling_auto; import sparsebert",
    ],
)
def test_auto_classes_know_shrunk_models_whichever_is_imported_first(imports: str, tmp_path: Path):
    model = tiny_model("bert")
    shrink(model, random_keep(model)).save_pretrained(tmp_path)
    code = (
        f"{imports}; from transformers import AutoModelForSequenceClassification as Auto\n"
        f"print(type(Auto.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "SparseBertForSequenceClassification"


@pytest.mark.process
def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = (
        "import sys, sparsebert\n"
        "print(sorted({'torch', 'transformers', 'pydantic', 'yaml'} & set(sys.modules)))\n"
        "print(sparsebert.__version__, sparsebert.Recipe.__name__)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["[]", f"{__version__} Recipe"]


def test_public_names_exist():
    import sparsebert

    assert all(getattr(sparsebert, name) for name in sparsebert.__all__)
    with pytest.raises(AttributeError, match="no attribute 'shrnk'"):
        _ = sparsebert.shrnk
