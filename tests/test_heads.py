"""What a model was saved as: its head and its task are kept, and one that is not known is never dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMultipleChoice, BertModel

from sparsebert.errors import UserError
from sparsebert.models.heads import has_task_head, saved_head, saved_kind, unknown_head
from sparsebert.models.load import load_config, load_model, save_model
from sparsebert.models.surgeon import shrink
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.regression import REGRESSION
from tiny import tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

KINDS = {
    "BertForSequenceClassification": "classification",
    "SparseBertForSequenceClassification": "classification",
    "BertForMaskedLM": "masked_lm",
    "BertModel": "base",
    "BertForTokenClassification": "tokens",
    "BertForMultipleChoice": "base",
    "BertForPreTraining": "base",
    "BertLMHeadModel": "base",
    "SparseBertModel": "base",
    "OwnBertForSequenceClassification": "base",
}


UNKNOWN = (
    "BertForMultipleChoice",
    "BertForPreTraining",
    "BertLMHeadModel",
    "OwnBertForSequenceClassification",
)


def config(*architectures: str, **values: object) -> BertConfig:
    return BertConfig(architectures=list(architectures), **values)


def rewrite(folder: Path, **values: object) -> Path:
    """Change values of a saved configuration; gives the folder back."""
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(known | values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_the_class_says_what_was_saved(name: str):
    assert saved_head(config(name)) == KINDS[name]
    assert unknown_head(config(name)) == (name if name in UNKNOWN else None)
    assert saved_head(config()) == "base" and unknown_head(config()) is None


def test_one_label_without_a_problem_type_is_a_regression():
    classifier = "BertForSequenceClassification"
    assert saved_kind(config(classifier, num_labels=1)) == "regression"
    assert saved_kind(config(classifier, num_labels=1, problem_type="multi_label_classification")) == "multilabel"
    assert saved_kind(config(classifier, num_labels=3, problem_type="regression")) == "regression"


def test_a_head_for_another_problem_is_no_head_for_the_task():
    classifier, names = "BertForSequenceClassification", {0: "no", 1: "yes"}
    assert has_task_head(config(classifier, id2label=names), CLASSIFICATION, 2, ("No", "yes"))
    assert has_task_head(config(classifier, id2label=names), CLASSIFICATION, 2, ("yes", "no"))
    assert not has_task_head(config(classifier, id2label=names), CLASSIFICATION, 2, ("yes", "maybe"))
    several = config(classifier, num_labels=2, problem_type="multi_label_classification")
    assert not has_task_head(several, CLASSIFICATION, 2)
    assert has_task_head(config(classifier, num_labels=1), REGRESSION, 1)


@pytest.mark.parametrize(("labels", "problem"), [(1, None), (1, "regression"), (3, "multi_label_classification")])
def test_a_model_is_packed_and_loaded_as_what_it_was(labels: int, problem: str | None, tmp_path: Path):
    save_tiny(tmp_path / "model", num_labels=labels)
    rewrite(tmp_path / "model", problem_type=problem)
    said = run_cli("pack", tmp_path / "model", "-o", tmp_path / "packed")
    assert said.exit_code == 0, said.output
    before, after = (load_model(tmp_path / name) for name in ("model", "packed"))
    assert before.config.problem_type == after.config.problem_type == problem
    assert before.config.num_labels == after.config.num_labels == labels


def test_an_unknown_head_is_left_out_aloud_and_never_packed(tmp_path: Path):
    save_tiny(tmp_path / "model")
    BertForMultipleChoice(load_config(tmp_path / "model")).save_pretrained(tmp_path / "model")
    said = run_cli("info", tmp_path / "model")
    assert said.exit_code == 0 and "the head of BertForMultipleChoice is left out" in said.stderr
    assert_refused(run_cli("pack", tmp_path / "model", "-o", tmp_path / "packed"), ["BertForMultipleChoice"])
    assert not (tmp_path / "packed").exists()


def test_codes_are_of_packed_files_only(tmp_path: Path):
    save_tiny(tmp_path / "model")
    said = run_cli("pack", tmp_path / "model", "--weights", "int8", "--unpack", "-o", tmp_path / "out")
    assert_refused(said, ["A plain file cannot hold weights in int8 or int4"])


def test_a_model_without_a_pooler_comes_back_without_one(tmp_path: Path):
    model = BertModel(tiny_model("bert", "base").config, add_pooling_layer=False)
    for name, saved in (("stock", model), ("cut", shrink(model, {}))):
        save_model(saved, None, tmp_path / name)
        again = load_model(tmp_path / name)
        assert again.state_dict().keys() == saved.state_dict().keys()
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in saved.state_dict().items())


def test_a_file_with_more_layers_than_its_configuration_is_refused(tmp_path: Path):
    save_tiny(tmp_path)
    rewrite(tmp_path, num_hidden_layers=2)
    with pytest.raises(
        UserError, match=r"16 tensors that a model of its config\.json does not use; got bert\.encoder\.layer\.2"
    ):
        load_model(tmp_path)
    save_tiny(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"cls.seq_relationship.bias": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert load_model(tmp_path).config.num_hidden_layers == 3
    # Parts of other models, and buffers, change nothing.
    more = {"teacher.encoder.layer.0.weight": torch.zeros(2), "bert.encoder.layer.0.masked_bias_value": torch.zeros(2)}
    save_file(tensors | more, tmp_path / "model.safetensors", {"format": "pt"})
    assert load_model(tmp_path).config.num_hidden_layers == 3


BAD_VALUES = {
    "hidden_size": "32",
    "num_attention_heads": 5,
    "hidden_act": "gelo",
    "dtype": "float31",
}


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_configuration_that_no_model_can_be_built_from_is_one_line(key: str, tmp_path: Path):
    save_tiny(tmp_path)
    rewrite(tmp_path, **{key: BAD_VALUES[key]})
    assert_refused(run_cli("pack", tmp_path, "-o", tmp_path / "out"), ["config.json"])


def test_an_index_that_is_no_json_and_a_home_of_nobody_are_one_line(tmp_path: Path):
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    assert_refused(run_cli("info", tmp_path), ["model.safetensors.index.json is not readable"])
    assert_refused(run_cli("info", "~no-such-user-here/model"), ["no such home"])


def test_what_is_wrong_with_a_value_is_said_and_not_only_where(tmp_path: Path):
    folder = rewrite(save_tiny(tmp_path / "model"), hidden_size="wide")
    with pytest.raises(UserError, match=r"'hidden_size': .*expected int, got str"):
        load_config(folder)
