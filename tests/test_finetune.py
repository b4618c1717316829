"""`sparsebert finetune`: the shape stays, zeros stay, a teacher teaches, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparsebert
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.records import Record, read_record
from tiny_run import assert_refused, run_cli, save_tiny, write_task

SHORT = ("--set", "training.max_steps=6", "--set", "training.learning_rate=0.003", "--set", "measure.timed=false")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned model, the same with 60 % zeros in its encoder, and a base model."""
    folder = tmp_path_factory.mktemp("finetune")
    save_tiny(folder / "tuned")
    save_tiny(folder / "base", "base")
    write_task(folder / "data")
    model = load_model(folder / "tuned")
    for name in encoder_linear_names(model):
        weight = model.get_parameter(name).data
        weight[torch.rand(weight.shape) < 0.6] = 0
    save_model(model, load_tokenizer(folder / "tuned"), folder / "sparse")
    return folder


def finetune(home: Path, model: str, name: str, *options: object) -> Record:
    said = run_cli(
        "finetune", home / model, "--task", "mine", "--data", home / "data", "-o", home / name, *SHORT, *options
    )
    assert said.exit_code == 0, said.output
    return read_record(home / name)


def zeros(folder: Path) -> dict[str, torch.Tensor]:
    model = load_model(folder)
    return {name: model.get_parameter(name) == 0 for name in encoder_linear_names(model)}


def test_a_model_learns_and_keeps_its_shape(home: Path):
    record = finetune(home, "tuned", "plain")
    [model] = record.models
    assert (record.kind, record.status, model.name) == ("finetune", "finished", "finetuned")
    assert model.training is not None and model.training.steps == 6 and not model.training.teacher
    assert model.one_shot_scores and model.sparsity.encoder_linear == 0
    before, after = (load_model(home / name).state_dict() for name in ("tuned", "plain/finetuned"))
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert finetune(home, "tuned", "plain") == record


def test_zeros_of_the_encoder_are_held(home: Path):
    record = finetune(home, "sparse", "held")
    before, after = zeros(home / "sparse"), zeros(home / "held" / "finetuned")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert record.models[0].sparsity.encoder_linear == pytest.approx(0.6, abs=0.02)
    assert record.models[0].sparsity.bytes_on_disk > 0


def test_zeros_are_filled_in_where_that_is_asked_for(home: Path):
    record = finetune(home, "sparse", "filled", "--fill-zeros")
    assert record.models[0].sparsity.encoder_linear < 0.1


def test_a_base_model_has_no_scores_before(home: Path):
    record = finetune(home, "base", "from-base")
    assert record.models[0].one_shot_scores == () and record.models[0].scores


def test_a_teacher_teaches(home: Path):
    record = finetune(home, "sparse", "taught", "--teacher", home / "tuned")
    [model] = record.models
    assert model.training is not None and model.training.teacher
    assert record.inputs is not None and list(record.inputs.teachers) == [str(home / "tuned")]


def test_from_python(home: Path, tmp_path: Path):
    given = {"data": home / "data", "output": tmp_path / "out", "measure": {"timed": False}, "progress": False}
    result = sparsebert.finetune(home / "tuned", training={"max_steps": 2}, **given)
    assert list(result.models) == ["finetuned"] and result.record.task == "custom"


BAD = {
    "The teacher is not fine-tuned for this task": ("--teacher", "BASE"),
    "give the teacher's folder or hub name": ("--teacher", "dense"),
    "Unknown recipe key 'phases'": ("--set", "phases=[]", "--set", "kind=finetune"),
    "The recipe is of kind train; use `sparsebert train`": ("--recipe", "random"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(home: Path, said: str):
    options = [home / "base" if part == "BASE" else part for part in BAD[said]]
    given = ("finetune", home / "tuned", "--task", "mine", "--data", home / "data", "-o", home / "bad", *options)
    assert_refused(run_cli(*given), [said])
    assert not (home / "bad").exists()
