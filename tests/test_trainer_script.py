"""SparseTrainer in place of Trainer in a script: what worked goes on working, and what is said can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, default_data_collator

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.fast_feedforward.layer import Routing
from sparsebert.models.load import load_model, save_model
from sparsebert.models.surgeon import convert_ffn, set_routing
from sparsebert.recipe.schema import Distill, Rule, When
from sparsebert.sparse.sparsifier import LeakError, Sparsifier
from sparsebert.training.distill import Distiller
from sparsebert.training.teacher import cache_teacher
from sparsebert.training.trainer import SparseTrainer
from tiny import tiny_model
from toy import toy_collate, toy_rows

ROWS = toy_rows(32)
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def small() -> PreTrainedModel:
    return tiny_model("bert", num_labels=2)


def rule(**values: Any) -> Rule:
    return Rule.model_validate({"sparsity": 0.5, "every": {"steps": 1}, "stop": {"steps": 6}, **values})


def arguments(folder: Path, **values: Any) -> TrainingArguments:
    plain = {"max_steps": 10, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 2}
    quiet = {"report_to": [], "use_cpu": True, "remove_unused_columns": False, "save_strategy": "no"}
    return TrainingArguments(str(folder), **(plain | quiet | values))


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in toy_collate(rows).items() if key != "rows"}


def trainer(folder: Path, *rules: Rule, model: PreTrainedModel | None = None, **values: Any) -> SparseTrainer:
    own = {key: values.pop(key) for key in ("train_dataset", "model_init", "held", "compute_metrics") if key in values}
    given = {"train_dataset": ROWS, "eval_dataset": ROWS, "data_collator": collate, "rules": rules} | own
    chosen = model or (None if "model_init" in own else small())
    return SparseTrainer(chosen, arguments(folder, **values), **given)


def leaks(model: nn.Module, masks: dict[str, torch.Tensor]) -> int:
    return sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())


def share_of_zeros(model: nn.Module) -> float:
    return float((model.get_parameter(QUERY) == 0).float().mean())


@pytest.mark.parametrize("gate", [None, "soft_mask", "movement"])
def test_a_second_training_keeps_the_masks_of_the_first(gate: str | None, tmp_path: Path):
    one = trainer(tmp_path, rule(gate=gate))
    one.train()
    first, before = one.masks, one.student.get_parameter(QUERY).detach().clone()
    one.train()
    assert leaks(one.student, first) == 0 and share_of_zeros(one.student) == pytest.approx(0.5, abs=0.02)
    assert all(torch.equal(mask, first[name]) for name, mask in one.masks.items()) and first.keys() == one.masks.keys()
    assert not torch.equal(before, one.student.get_parameter(QUERY))


@pytest.mark.parametrize("clipped", [True, False])
def test_criteria_see_unscaled_gradients(clipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []

    def first_gradient(scaled: bool) -> float:
        one = trainer(tmp_path, rule(), max_grad_norm=1e9 if clipped else 0.0)
        if scaled:
            # accelerate refuses fp16 on a CPU; its scaler works there.
            monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
            one.accelerator.native_amp, one.accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
        query = one.student.get_parameter(QUERY)

        def look(sparsifier: Sparsifier, step: int, optimizer: object) -> None:
            if query.grad is not None:
                seen.append(float(query.grad.norm()))

        monkeypatch.setattr(Sparsifier, "before_step", look)
        seen.clear()
        one.train()
        return seen[0]

    assert first_gradient(scaled=False) == pytest.approx(first_gradient(scaled=True), rel=0.05)


def test_a_second_training_after_one_that_holds_nothing_is_an_ordinary_one(tmp_path: Path):
    one = trainer(tmp_path, rule(update="delete", schedule="one_shot"))
    one.train()
    one.train()
    assert one.masks == {} and share_of_zeros(one.student) < 0.05


def best_of(folder: Path, chosen: Rule, best: int, **values: Any) -> SparseTrainer:
    """Trained for 12 steps, with the least made-up loss at step `best`, and more at every later one."""
    each = {"max_steps": 12, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    pick = {"load_best_model_at_end": True, "metric_for_best_model": "eval_fake", "greater_is_better": False}
    one = trainer(
        folder, chosen, compute_metrics=lambda _: {"fake": abs(one.state.global_step - best)}, **each, **pick, **values
    )
    one.train()
    return one


@pytest.mark.parametrize("only_model", [False, True])
@pytest.mark.parametrize(
    "kind", [{}, {"gate": "movement", "every": {"steps": 4}}, {"update": "swap", "schedule": "constant"}]
)
def test_the_best_model_has_final_masks_and_is_the_one_that_was_scored(
    kind: dict[str, Any], only_model: bool, tmp_path: Path
):
    one = best_of(tmp_path, rule(stop={"steps": 5}, **kind), best=2, save_only_model=only_model)
    assert one.state.best_model_checkpoint == str(tmp_path / "checkpoint-6")
    scored = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
    assert leaks(one.student, one.masks) == 0
    kept = torch.cat([mask.flatten().float() for mask in one.masks.values()])
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.01)
    for name, value in one.student.state_dict().items():
        if name in scored:
            assert torch.equal(value, scored[name]), name
    if "gate" in kind:
        gone = load_file(tmp_path / "checkpoint-6" / "sparsity.safetensors")["rule0/drawn/0"].view(32, 32)
        assert torch.equal(one.masks[QUERY], gone)


def test_masks_that_change_until_the_end_have_no_best_model(tmp_path: Path):
    with pytest.raises(UserError, match="Masks change until the end, so no checkpoint has the final ones"):
        best_of(tmp_path, rule(stop={"percent": 100}), best=2)


class StopAt(TrainerCallback):
    """Ends the training early, as early stopping does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        """At the step."""
        control.should_training_stop = state.global_step == self.step


def test_a_training_that_stops_early_says_how_far_its_masks_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = trainer(tmp_path, rule(schedule="linear", stop={"percent": 100}))
    one.add_callback(StopAt(5))
    one.train()
    assert share_of_zeros(one.student) == pytest.approx(0.2, abs=0.01)
    assert "stopped at step 5, before the masks were final; sparsity 20.0%" in capsys.readouterr().err


@pytest.mark.parametrize("gate", [None, "movement"])
def test_a_schedule_that_the_training_is_too_short_for_is_refused(gate: str | None, tmp_path: Path):
    one = trainer(tmp_path, rule(stop={"steps": 20}, gate=gate))
    with pytest.raises(UserError, match=r"after the training ends; .* stop 20 \(steps\); allowed: at most 10"):
        one.train()


def test_what_is_said_while_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trainer(tmp_path, rule(scope=["ffn"]), eval_strategy="steps", eval_steps=5).train()
    captured = capsys.readouterr()
    assert captured.out == ""

    def lines(words: str) -> list[str]:
        return [line for line in captured.err.splitlines() if words in line]

    [dense] = lines("left dense")
    assert "bert.encoder.layer.*.attention.self.query.weight, " in dense and "classifier.weight" in dense
    assert "attention.output.dense.weight" in dense and "intermediate" not in dense
    assert len(lines("step 5 of 10: eval_loss ")) == len(lines("step 10 of 10: eval_loss ")) == 1
    assert len(lines(" of 10: loss ")) == 5 and "sparsity 0.5" in lines("step 8 of 10: loss ")[0]


def test_the_model_and_its_arguments_may_come_without_names(tmp_path: Path):
    one = SparseTrainer(small(), arguments(tmp_path), collate, ROWS, rules=[rule()])
    one.train()
    assert leaks(one.student, one.masks) == 0 and one.masks


@pytest.mark.parametrize("gate", [None, "movement"])
def test_every_training_of_model_init_starts_anew(gate: str | None, tmp_path: Path):
    one = trainer(tmp_path, rule(gate=gate), model_init=small)
    one.train()
    first, model = one.masks, one.model
    one.train()
    assert one.model is not model and one.student is one.model
    assert first and all(torch.equal(mask, one.masks[name]) for name, mask in first.items())
    assert leaks(one.student, one.masks) == 0 and share_of_zeros(one.student) == pytest.approx(0.5, abs=0.01)


def streamed() -> IterableDataset:
    return IterableDataset.from_generator(lambda: (dict(ROWS[number % 32]) for number in range(100)))


def test_data_without_a_length(tmp_path: Path):
    layers = rule(structure="layer", sparsity=1 / 3, criterion="loss_increase", schedule="one_shot")
    for chosen in (rule(), layers):
        one = trainer(tmp_path, chosen, train_dataset=streamed())
        one.train()
        assert one.masks and leaks(one.student, one.masks) == 0
    one = trainer(tmp_path, rule(stop={"epochs": 1}), train_dataset=streamed())
    with pytest.raises(UserError, match="Data without a length has no epochs"):
        one.train()


def test_probing_the_loss_leaves_out_columns_that_the_model_does_not_take(tmp_path: Path):
    rows = Dataset.from_dict(
        {
            "input_ids": [[1, 10 + row % 20, 12] for row in range(16)],
            "attention_mask": [[1, 1, 1]] * 16,
            "label": [row % 2 for row in range(16)],
            "sentence": ["words"] * 16,
        }
    )
    heads = rule(scope=["attention"], structure="head", criterion="loss_increase")

    def plain(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        assert "sentence" not in rows[0]
        return default_data_collator(list(rows))

    one = SparseTrainer(small(), arguments(tmp_path, remove_unused_columns=True), plain, rows, rules=[heads])
    one.train()
    assert one.masks and leaks(one.student, one.masks) == 0
    one.student.train()
    one.probe_loss()
    assert one.student.training


@pytest.mark.parametrize("distilled", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_batch(distilled: bool, tmp_path: Path):
    def moved(batch: int) -> torch.Tensor:
        values = {"optim": "sgd", "max_steps": 1, "learning_rate": 1.0, "max_grad_norm": 0.0}
        parts = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
        l1 = rule(penalty={"kind": "l1", "weight": 0.01}, sparsity=0.0, stop={"percent": 100}, scope=["ffn"])
        given = {"train_dataset": ROWS, "order": SequentialSampler(ROWS), "rules": [l1], "dropout": 0}
        model, more = small(), {"data_collator": collate}
        if distilled:
            more = {"data_collator": toy_collate, "distiller": teacher_of(tmp_path)}
        SparseTrainer(model, arguments(tmp_path / "run", **values, **parts), **given, **more).train()
        return model.get_parameter(QUERY).detach()

    whole = moved(8)
    assert (whole - small().get_parameter(QUERY)).abs().max() > 1e-3
    torch.testing.assert_close(moved(2), whole, rtol=1e-3, atol=1e-6)


def teacher_of(folder: Path, **weights: float) -> Distiller:
    teacher = tiny_model("bert", num_labels=2, seed=1)
    cache = cache_teacher(teacher, ROWS, toy_collate, folder / "teacher", hidden=False)
    return Distiller(cache, Distill(**({"labels": 0.5, "logits": 0.5, "hidden": 0} | weights)), (0, 1, 2))


def test_evaluation_asks_no_teacher(tmp_path: Path):
    more = toy_rows(48, seed=5)
    given = {"train_dataset": ROWS, "eval_dataset": more, "data_collator": toy_collate}
    one = SparseTrainer(small(), arguments(tmp_path), distiller=teacher_of(tmp_path, labels=0, logits=1), **given)
    before = one.evaluate()["eval_loss"]
    plain = trainer(tmp_path, model=small(), train_dataset=ROWS)
    assert before == pytest.approx(plain.evaluate(more)["eval_loss"])
    one.train()
    assert one.evaluate()["eval_loss"] != pytest.approx(before)
    smoothed = arguments(tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(UserError, match="weighs the labels' own loss itself; got label_smoothing_factor"):
        SparseTrainer(small(), smoothed, distiller=teacher_of(tmp_path), **given)


@pytest.mark.parametrize("dropout", [0, None])
def test_checkpointed_layers_are_computed_again(dropout: float | None, tmp_path: Path):
    model, passes = small(), []
    model.get_submodule("bert.encoder.layer.0.attention").register_forward_hook(lambda *_: passes.append(1))
    given = {"train_dataset": ROWS, "data_collator": collate, "dropout": dropout}
    SparseTrainer(model, arguments(tmp_path, max_steps=1, activation_checkpointing=True), **given).train()
    assert len(passes) == 2


def test_a_checkpoint_of_other_circumstances_is_refused(tmp_path: Path):
    held, rules = {QUERY: torch.rand(32, 32) < 0.5}, (rule(scope=["ffn"]),)
    sparse = small()
    sparse.get_parameter(QUERY).data.mul_(held[QUERY])
    trainer(tmp_path, *rules, model=sparse, held=held, max_steps=6, save_strategy="steps", save_steps=3).train()

    def resumed(*rules: Rule, **more: Any) -> None:
        trainer(tmp_path, *rules, **({"max_steps": 6} | more)).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )

    for said, given, more in (
        ("was made with sparsity rules", (), {}),
        (f"different: held {QUERY}", rules, {}),
        (r"different: rules \(1 then, 0 now\)", (), {"held": held}),
        ("different: seed", rules, {"held": held, "seed": 1}),
        ("another length; got 9 steps; allowed: 6 steps", rules, {"held": held, "max_steps": 9}),
    ):
        with pytest.raises(UserError, match=said):
            resumed(*given, **more)
    resumed(*rules, held=held)


def test_noise_that_would_be_drawn_again_is_refused(tmp_path: Path):
    reentrant = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(UserError, match="other noise than the forward pass did"):
        trainer(tmp_path, rule(gate="hard_concrete", penalty="lagrangian"), **reentrant).train()
    trainer(tmp_path, rule(gate="movement"), **reentrant, max_steps=6).train()


def test_several_gpus_in_one_process_are_refused(tmp_path: Path):
    given = arguments(tmp_path)
    given._n_gpu = 2
    with pytest.raises(UserError, match="One process trains on one GPU; got 2; start one process a GPU"):
        SparseTrainer(small(), given)


def test_a_checkpoint_that_leaks_is_not_written(tmp_path: Path):
    class Meddling(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.get_parameter(QUERY).data.fill_(1.0)

    one = trainer(tmp_path, rule(schedule="one_shot"), save_strategy="steps", save_steps=3)
    one.add_callback(Meddling())
    with pytest.raises(LeakError, match="are not zero"):
        one.train()
    assert not list(tmp_path.glob("checkpoint-*/model*"))


def test_a_penalty_weighs_the_same_under_accumulation(tmp_path: Path):
    def moved(batch: int) -> torch.Tensor:
        values = {"optim": "sgd", "max_steps": 1, "learning_rate": 1.0, "max_grad_norm": 0.0}
        parts = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
        heavy = rule(penalty={"kind": "l1", "weight": 0.5}, sparsity=0.0)
        one = SparseTrainer(
            small(),
            arguments(tmp_path, **values, **parts),
            rules=[heavy.model_copy(update={"stop": When(percent=100)})],
            dropout=0,
            train_dataset=ROWS,
            data_collator=collate,
        )
        one.train()
        return one.student.get_parameter(QUERY).detach()

    assert (moved(8) - small().get_parameter(QUERY)).abs().mean() > 0.4
    # What remains is of the task's loss; a penalty of twice the weight would move each weight by 0.5 more.
    assert (moved(4) - moved(8)).abs().max() < 0.2


@pytest.mark.parametrize("dropout", [None, 0])
def test_the_routing_of_trees_is_trained_too(dropout: float | None, tmp_path: Path):
    set_routing(converted := convert_ffn(small(), depth=3), Routing(balance=0.5, hardening=0.25))
    save_model(converted, None, tmp_path / "converted")
    model = load_model(tmp_path / "converted")
    made = SparseTrainer(model, arguments(tmp_path), dropout=dropout, train_dataset=ROWS, data_collator=collate)
    batch = collate([ROWS[index] for index in range(8)])
    trees = list(trees_of(model).values())
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    routed, weights = made.compute_loss(model, batch), [tree.w_in for tree in trees]
    terms = torch.stack([tree.penalty for tree in trees if tree.penalty is not None])
    of_terms = torch.autograd.grad(terms.sum(), weights, retain_graph=True)
    of_both = torch.autograd.grad(routed, weights)
    set_routing(model, Routing())
    plain = made.compute_loss(model, batch)
    assert len(terms) == len(trees) and bool(terms.sum() > 0.5)
    torch.testing.assert_close(routed - plain, terms.sum(), rtol=1e-4, atol=1e-6)
    for both, own, term in zip(of_both, torch.autograd.grad(plain, weights), of_terms, strict=True):
        assert bool(term.any())
        torch.testing.assert_close(both, own + term, rtol=1e-3, atol=1e-6)
    set_routing(model, Routing(balance=0.5, hardening=0.25))
    with torch.no_grad():
        assert float(made.compute_loss(model.eval(), batch)) == pytest.approx(float(plain.detach()), rel=1e-5)


def test_padding_counts_in_no_routing_term(tmp_path: Path):
    set_routing(converted := convert_ffn(small(), depth=3), Routing(balance=0.5, hardening=0.25))
    made = SparseTrainer(converted, arguments(tmp_path), dropout=0, train_dataset=ROWS, data_collator=collate)
    batch = collate([ROWS[index] for index in range(8)])
    padded = {key: nn.functional.pad(value, (0, 5)) if value.dim() > 1 else value for key, value in batch.items()}
    trees = trees_of(converted).values()

    def terms(inputs: dict[str, torch.Tensor]) -> list[float]:
        made.compute_loss(converted.train(), inputs)
        return [float(tree.penalty.detach()) for tree in trees if tree.penalty is not None]

    assert len(terms(batch)) == len(trees) and terms(padded) == pytest.approx(terms(batch), rel=1e-5)
