"""What a SparseTrainer cannot do right is refused, or mended, before it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    BertTokenizerFast,
    PreTrainedModel,
    TrainerCallback,
    default_data_collator,
)

from sparsebert.errors import UserError
from sparsebert.training.callback import STATE_FILE
from sparsebert.training.collate import padding_collator
from sparsebert.training.trainer import SparseTrainer
from test_trainer_script import ROWS, arguments, collate, leaks, rule, small, teacher_of
from tiny import tiny_model
from tiny_run import SPECIAL, WORDS
from toy import toy_collate, toy_rows

HEADS = rule(scope=["attention"], structure="head", criterion="loss_increase")
SCORES = "sparsity_gates.rule0.scores.0"


def trainer(folder: Path, *rules: Any, model: PreTrainedModel, optimizers: Any = (None, None), **more: Any) -> Any:
    given = {"train_dataset": ROWS, "data_collator": collate, "rules": rules, "optimizers": optimizers}
    return SparseTrainer(model, arguments(folder, **more), **given)


class Seeing(TrainerCallback):
    """Looks after every step."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self._look = look

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._look()


def test_a_teacher_of_other_rows_or_labels_is_refused(tmp_path: Path):
    given = {"data_collator": toy_collate, "distiller": teacher_of(tmp_path)}
    with pytest.raises(UserError, match="asked about other training rows; got 48 rows, 32 of the teacher's"):
        SparseTrainer(small(), arguments(tmp_path), train_dataset=toy_rows(48), **given)
    with pytest.raises(UserError, match="different numbers of outputs; got 2 and 3"):
        SparseTrainer(tiny_model("bert"), arguments(tmp_path), train_dataset=ROWS, **given)


def test_a_teacher_is_found_although_unused_columns_are_removed(tmp_path: Path):
    padded = padding_collator(BertTokenizerFast(vocab={word: number for number, word in enumerate((*SPECIAL, *WORDS))}))
    models = []
    for removed in (True, False):
        model, own = small(), arguments(tmp_path / "run", remove_unused_columns=removed)
        given = {"train_dataset": ROWS, "data_collator": padded, "distiller": teacher_of(tmp_path), "dropout": 0}
        SparseTrainer(model, own, **given).train()
        models.append(model)
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_units_of_a_question_answering_model_are_ranked_by_its_own_loss(tmp_path: Path):
    model = AutoModelForQuestionAnswering.from_config(small().config)
    rows = Dataset.from_list(
        [{"input_ids": [1, 12 + row, 13, 14], "start_positions": row % 4, "end_positions": 3} for row in range(16)]
    )
    given = {"train_dataset": rows, "data_collator": default_data_collator, "rules": [HEADS]}
    one = SparseTrainer(model, arguments(tmp_path, remove_unused_columns=True), **given)
    with torch.no_grad():
        batch = default_data_collator([rows[row] for row in range(16)])
        expected = float(model.eval()(**batch).loss)
    assert one.probe_loss() == pytest.approx(expected, rel=1e-5)
    one.train()
    assert one.masks and leaks(model, one.masks) == 0


def test_a_model_without_a_loss_cannot_rank_by_it(tmp_path: Path):
    rows = Dataset.from_list([{"input_ids": [1, 12, 13, 14]}] * 8)
    given = {"train_dataset": rows, "data_collator": default_data_collator, "rules": [HEADS]}
    with pytest.raises(UserError, match="gives no loss for the training examples"):
        SparseTrainer(small(), arguments(tmp_path), **given).probe_loss()


@pytest.mark.parametrize("gate", [None, "movement"])
def test_an_optimizer_of_ones_own_moves_the_gates_too(gate: str | None, tmp_path: Path):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    one = trainer(tmp_path, rule(gate=gate, stop={"percent": 100}), model=model, optimizers=(optimizer, None))
    before = model.get_parameter(SCORES).detach().clone() if gate else None
    moved = []
    one.add_callback(Seeing(lambda: moved.append(model.get_parameter(SCORES).detach().clone()) if gate else None))
    one.train()
    assert leaks(model, one.masks) == 0 and one.optimizer.optimizer is optimizer
    assert before is None or not torch.equal(moved[-1], before)


def test_a_scheduler_of_ones_own_with_gates_is_refused(tmp_path: Path):
    def both(model: PreTrainedModel) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    model = small()
    with pytest.raises(UserError, match="does not know the gates"):
        trainer(tmp_path, rule(gate="movement"), model=model, optimizers=both(model))
    model = small()
    one = trainer(tmp_path, rule(), model=model, optimizers=both(model))
    one.train()
    assert leaks(model, one.masks) == 0


@pytest.mark.parametrize("gate", [None, "movement", "hard_concrete"])
def test_memory_that_runs_out_before_masks_change_costs_only_the_batch(gate: str | None, tmp_path: Path):
    model = small()
    model.register_forward_pre_hook(out_of_memory(lambda passes: True), with_kwargs=True)
    given = {"gate": gate, "penalty": "lagrangian"} if gate == "hard_concrete" else {"gate": gate}
    one = trainer(tmp_path, rule(**given), model=model, auto_find_batch_size=True)
    one.train()
    assert one.masks and leaks(model, one.masks) == 0 and one._train_batch_size < 8


@pytest.mark.parametrize("gate", [None, "movement"])
def test_memory_that_runs_out_after_masks_have_changed_ends_the_training(gate: str | None, tmp_path: Path):
    model = small()
    model.register_forward_pre_hook(out_of_memory(lambda passes: passes > 3), with_kwargs=True)
    with pytest.raises(
        UserError, match=r"cannot start again on masks .* instead of auto_find_batch_size, give the batch"
    ):
        trainer(tmp_path, rule(gate=gate), model=model, auto_find_batch_size=True).train()


def test_zeros_that_no_mask_holds_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = trainer(tmp_path, rule(), model=small())
    first.train()
    assert "in no mask" not in capsys.readouterr().err
    trainer(tmp_path, rule(initial=0.5), model=first.student).train()
    assert "50.0% of the weights under rules are zero at the start and in no mask" in capsys.readouterr().err
    first.train()
    assert "in no mask" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["half", "renamed"])
def test_damaged_masks_of_a_checkpoint_are_named(damage: str, tmp_path: Path):
    trainer(tmp_path, rule(), model=small(), save_strategy="steps", save_steps=4).train()
    file = tmp_path / "checkpoint-4" / STATE_FILE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "half" else content.replace(b"/holding", b"/holdinf"))
    with pytest.raises(UserError, match=r"The masks of the checkpoint are damaged; got .*sparsity\.safetensors"):
        trainer(tmp_path, rule(), model=small()).train(resume_from_checkpoint=str(file.parent))


def out_of_memory(fails: Callable[[int], bool]) -> Callable[..., None]:
    """A hook that fails as torch does in batches of more than 4, at passes that `fails` names."""
    passes = []

    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passes.append(1)
        if len(kwargs["input_ids"]) > 4 and fails(len(passes)):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return hook
