"""Files that other tools wrapped, adapted or masked are refused with the way out, never read as something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize, prune

from sparsebert.errors import UserError
from sparsebert.models.load import load_model
from test_heads import rewrite
from tiny_run import assert_refused, run_cli, save_tiny

FILES = {
    "module": (lambda name: f"module.{name}", "DataParallel"),
    "compiled": (lambda name: f"_orig_mod.{name}", "torch.compile"),
    "peft": (lambda name: f"base_model.model.{name}", "PEFT"),
    "base layer": (lambda name: name.replace("dense.weight", "dense.base_layer.weight"), "PEFT"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_wrapped_models_name_the_wrapper(kind: str, tmp_path: Path):
    rename, wrapper = FILES[kind]
    file = save_tiny(tmp_path) / "model.safetensors"
    save_file({rename(name): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"were saved wrapped in .*{wrapper}; got .*instead"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["prune", "parametrize"])
def test_files_saved_under_masks_name_what_to_call(kind: str, tmp_path: Path):
    save_tiny(tmp_path)
    model = load_model(tmp_path)
    linear = model.bert.encoder.layer[1].output.dense
    if kind == "prune":
        prune.l1_unstructured(linear, "weight", 0.5)
    else:
        parametrize.register_parametrization(linear, "weight", nn.Identity())
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"wrapped in torch\.nn\.utils\.{kind}; got bert.encoder.layer.1"):
        load_model(tmp_path)


@pytest.mark.parametrize("with_config", [True, False])
def test_an_adapter_is_no_model(with_config: bool, tmp_path: Path):
    save_tiny(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
    if not with_config:
        (tmp_path / "config.json").unlink()
    assert_refused(run_cli("info", tmp_path), ["adapter of PEFT", "merge_and_unload"])


@pytest.mark.parametrize(
    ("classes", "converter"),
    [
        (["BertForSequenceClassification"], "transformers.BertForSequenceClassification.from_pretrained"),
        (["BertForMaskedLM"], "transformers.BertForMaskedLM.from_pretrained"),
        (["OwnBert"], "transformers.AutoModel.from_pretrained"),
        (None, "transformers.AutoModel.from_pretrained"),
    ],
)
def test_the_way_to_safetensors_keeps_the_head(classes: list[str] | None, converter: str, tmp_path: Path):
    save_tiny(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    rewrite(tmp_path, architectures=classes)
    with pytest.raises(UserError, match=f"no weights in the safetensors format.*{converter}"):
        load_model(tmp_path)


def test_sizes_that_take_all_memory_are_refused_before_that(tmp_path: Path):
    rewrite(save_tiny(tmp_path), vocab_size=2**26)
    with pytest.raises(UserError, match=r"asks for 2,147,5\d\d,\d\d\d numbers; got \d\d,\d\d\d"):
        load_model(tmp_path)
    rewrite(tmp_path, vocab_size=10**12)
    with pytest.raises(UserError, match="vocab_size; got 1000000000000; allowed: up to"):
        load_model(tmp_path)


@pytest.mark.parametrize("named", ["../model.safetensors", "/etc/passwd", "..", "", 3, ["a"], None])
def test_shards_are_beside_their_index(named: object, tmp_path: Path):
    file = save_tiny(tmp_path) / "model.safetensors"
    file.rename(tmp_path / "shard.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "shard.safetensors", "b": named}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert_refused(run_cli("info", tmp_path), ["index of the weights does not name files beside it"])
