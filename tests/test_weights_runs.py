"""Runs with `--weights`: what is scored is what loads, zeros stay, members start from what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.pack import read_contents
from sparsebert.records import PREDICTIONS, ModelResult, Record, read_record
from tiny_run import QUICK, run_cli, save_tiny, write_task

SHORT = ("--set", "measure.timed=false")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder / "tuned")
    write_task(folder / "data")
    model = load_model(folder / "tuned")
    for name in encoder_linear_names(model):
        weight = model.get_parameter(name).data
        weight[torch.rand(weight.shape) < 0.6] = 0
    save_model(model, load_tokenizer(folder / "tuned"), folder / "sparse")
    return folder


def run(home: Path, command: str, model: str, name: str, *options: object) -> Record:
    given = ("--task", "mine", "--data", home / "data", "-o", home / name)
    said = run_cli(command, home / model, *given, *SHORT, *options)
    assert said.exit_code == 0, said.output
    return read_record(home / name)


def assert_scored_as_it_loads(run: Path, made: ModelResult) -> None:
    """The run's own logits are those of what the Auto class makes of the folder."""
    model = AutoModelForSequenceClassification.from_pretrained(run / made.folder).eval()
    tokenizer = load_tokenizer(run / made.folder)
    rows = [line.split(",") for line in (run.parent / "data" / "validation.csv").read_text().splitlines()[1:]]
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text, *_ in rows]
    own = load_file(run / PREDICTIONS)[f"{made.name}/validation/logits"]
    np.testing.assert_allclose(np.stack(logits), own, atol=1e-5)
    assert model.dtype == torch.float32


def file_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_fine_tuned_model_is_scored_as_it_is_stored(home: Path, weights: str):
    options = ("--set", "training.max_steps=6", "--weights", weights)
    record = run(home, "finetune", "sparse", weights, *options)
    [made] = record.models
    folder = home / weights / "finetuned"
    assert_scored_as_it_loads(home / weights, made)
    assert read_contents(folder / "packed.safetensors")["bert.embeddings.word_embeddings.weight"]["numbers"] == weights
    # What was trained and what is stored differ; the zeros are the same, and no more.
    exact, stored = load_model(home / weights / "work" / "model"), load_model(folder)
    for name in encoder_linear_names(exact):
        assert torch.equal(exact.get_parameter(name) == 0, stored.get_parameter(name) == 0)
        assert not torch.equal(exact.get_parameter(name), stored.get_parameter(name))
    assert made.sparsity.encoder_linear == pytest.approx(0.6, abs=0.02)
    assert made.size.bytes_on_disk == file_bytes(folder)
    assert made.sparsity.bytes_on_disk > 0.4


def test_tables_can_have_numbers_of_their_own(home: Path):
    run(home, "finetune", "tuned", "tables", "--set", "training.max_steps=2", "--embedding-weights", "int4")
    contents = read_contents(home / "tables" / "finetuned" / "packed.safetensors")
    assert {name for name, entry in contents.items() if entry["numbers"]} == {
        f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
    }


def test_bf16_is_a_plain_file_that_is_computed_in_float32(home: Path):
    record = run(home, "finetune", "tuned", "half", "--set", "training.max_steps=2", "--weights", "bf16")
    assert_scored_as_it_loads(home / "half", record.models[0])
    assert [file.name for file in (home / "half" / "finetuned").glob("*.safetensors")] == ["model.safetensors"]
    assert record.models[0].architecture == "BertForSequenceClassification"


def test_members_of_a_family_are_rounded_and_the_dense_model_is_not(home: Path):
    options = ("--vocabulary", "auto", "--sparsity", "0.3", "--sparsity", "0.5", "--set", "finetune.max_steps=2")
    record = run(home, "compress", "tuned", "family", *QUICK, *options, "--weights", "int8")
    assert [one.name for one in record.models] == ["dense", "vocabulary", "0.3-sparsity", "0.5-sparsity"]
    # It was asked for, and not found out.
    assert not any("small enough" in note for note in record.notes)
    for made in record.models:
        assert_scored_as_it_loads(home / "family", made)
        packed = (home / "family" / made.folder / "packed.safetensors").is_file()
        assert packed == (made.name != "dense")
    work = home / "family" / "work"
    assert (work / "0.3-sparsity" / "exact" / "model.safetensors").is_file()
    # The next member was cut out of what was trained: rows of the table that nothing trains are bit for bit the same.
    one_shot = load_model(work / "0.5-sparsity" / "one-shot").get_input_embeddings().weight
    trained = load_model(work / "0.3-sparsity" / "exact").get_input_embeddings().weight
    stored = load_model(home / "family" / "0.3-sparsity").get_input_embeddings().weight
    assert torch.equal(one_shot, trained) and not torch.equal(one_shot, stored)


def test_targets_of_size_are_of_the_file_as_it_is_stored(home: Path):
    save_tiny(home / "wider", hidden_size=64, intermediate_size=256)
    record = run(home, "compress", "wider", "size", *QUICK, "--size", "0.2", "--no-finetune", "--weights", "int8")
    dense, small = record.models
    # The file's own description of its tensors is a good part of so small a one.
    assert 0.1 < small.size.bytes_on_disk / dense.size.bytes_on_disk < 0.3
    assert small.size.parameters > 0.5 * dense.size.parameters


def test_trees_are_rounded_too(home: Path):
    options = ("--set", "trees.steps=2", "--set", "finetune.max_steps=2", "--depth", "2", "--no-controls")
    options += ("--set", "search.examples=32", "--weights", "int4")
    made = run(home, "fff", "tuned", "trees", *options).models[1]
    assert_scored_as_it_loads(home / "trees", made)
    contents = read_contents(home / "trees" / made.folder / "packed.safetensors")
    assert contents["bert.encoder.layer.0.intermediate.dense.w_in"]["numbers"] == "int4"
    assert contents["bert.encoder.layer.0.intermediate.dense.b_in"]["numbers"] is None


def test_other_commands_take_such_a_folder(home: Path, tmp_path: Path):
    folder = home / "int8" / "finetuned"
    if not folder.exists():
        run(home, "finetune", "sparse", "int8", "--set", "training.max_steps=6", "--weights", "int8")
    assert run_cli("info", folder).exit_code == 0
    answers = run_cli("predict", folder, "good w1 w2", "--json")
    assert answers.exit_code == 0
    unpacked = run_cli("pack", folder, "--unpack", "-o", tmp_path / "plain")
    assert unpacked.exit_code == 0 and "bit for bit" in unpacked.stdout
    again = run_cli("predict", tmp_path / "plain", "good w1 w2", "--json")
    one, two = (json.loads(said.stdout)["predictions"][0] for said in (answers, again))
    assert one["probability"] == pytest.approx(two["probability"], abs=1e-6)
