"""Rules inside training: targets are met, zeros stay zero, a resumed run ends bit for bit where a whole one does."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as compressed_from_dense,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass as dense_from_compressed,
)
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainingArguments
from transformers.utils import logging

import sparsebert
from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.models.surgeon import live_units, shrink
from sparsebert.recipe.schema import Rule, Training, When
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sparsifier import LeakError, Sparsifier
from sparsebert.training.callback import STATE_FILE
from sparsebert.training.checkpoints import Checkpoints
from sparsebert.training.finetune import FineTuned, fine_tune
from sparsebert.training.trainer import SparseTrainer
from test_trainer import Interrupting
from tiny import tiny_batch, tiny_model
from toy import toy_collate, toy_rows

ROWS = toy_rows(32)
TRAINING = Training(max_steps=10, batch_size=8, save_steps=3, learning_rate=1e-3)
EVERY = {"every": When(steps=1), "stop": When(steps=6)}
SOME = ("attention", "ffn")


def rule(**values: object) -> Rule:
    return Rule.model_validate({"sparsity": 0.5, **EVERY, **values})


HARD = {
    "magnitude": rule(),
    "early": rule(stop=When(steps=4)),
    "random": rule(criterion="random"),
    "gradient": rule(criterion="gradient", budget="global"),
    "taylor": rule(criterion="taylor"),
    "activation": rule(criterion="activation"),
    "movement score": rule(criterion="movement"),
    "fisher": rule(criterion={"kind": "fisher", "block": 8, "gradients": 2}, every=When(steps=3)),
    "erk": rule(budget="erk"),
    "blocks": rule(structure={"kind": "block", "rows": 4, "cols": 8}),
    "2:4": rule(structure={"kind": "n:m", "n": 2, "m": 4}),
    "heads": rule(scope=("attention",), structure="head"),
    "neurons": rule(scope=("ffn",), structure="neuron", criterion="mean_activation"),
    "layers": rule(structure="layer", criterion="loss_increase", sparsity=1 / 3, schedule="one_shot"),
    "RigL": rule(schedule="constant", update={"kind": "swap", "grow": "gradient"}, stop=When(steps=9)),
    "SET": rule(schedule="constant", update={"kind": "swap", "grow": "random"}, stop=When(steps=9)),
    "l1": rule(penalty={"kind": "l1", "weight": 0.1}),
    "group lasso": rule(scope=("ffn",), structure="neuron", penalty={"kind": "group_lasso", "weight": 0.1}),
    "embeddings": rule(scope=("embeddings",)),
    "everything": rule(scope=("all",)),
}
GATED = {
    "movement": rule(gate="movement"),
    "soft mask": rule(gate="soft_mask"),
    "coefficients": rule(gate="coefficient", penalty={"kind": "l1", "of": "scores", "weight": 0.1}),
    "hard concrete": rule(gate="hard_concrete", penalty="lagrangian"),
    "hard concrete heads": rule(scope=("attention",), structure="head", gate="hard_concrete", penalty="lagrangian"),
    "soft movement": rule(gate="soft_movement", penalty={"kind": "l0", "weight": 1.0}),
}
TOP_K = ("movement", "soft mask", "coefficients")


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def small() -> PreTrainedModel:
    return tiny_model("bert", num_labels=2)


def train(model: PreTrainedModel, folder: Path, rules: Sequence[Rule], collate=toy_collate, **more) -> FineTuned:
    return fine_tune(model, ROWS, collate, TRAINING, folder, 0, "test", rules=rules, **more)


Trained = Callable[[str], tuple[PreTrainedModel, FineTuned]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of one's own that was trained without a break by a rule of HARD or GATED; each is trained once."""

    @functools.cache
    def once(name: str) -> tuple[PreTrainedModel, FineTuned]:
        model = small()
        return model, train(model, tmp_path_factory.mktemp("trained"), [(HARD | GATED)[name]])

    return lambda name: copy.deepcopy(once(name))


def zeros(model: PreTrainedModel, masks: dict[str, torch.Tensor]) -> int:
    """Weights that a mask says are gone and that are not zero."""
    return sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())


@pytest.mark.parametrize("name", [*HARD, *GATED])
def test_what_the_mask_says_is_zero_and_the_model_is_plain_again(name: str, trained: Trained, tmp_path: Path):
    (model, outcome), before = trained(name), small()
    assert outcome.masks and zeros(model, outcome.masks) == 0
    assert [key for key, _ in model.named_parameters()] == [key for key, _ in before.named_parameters()]
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    batch = tiny_batch()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("name", [*HARD, *TOP_K])
def test_the_target_is_met(name: str, trained: Trained):
    chosen, masks = (HARD | GATED)[name], trained(name)[1].masks
    matrices = [mask for mask in masks.values() if mask.dim() == 2]
    found = 1 - sum(float(mask.sum()) for mask in matrices) / sum(mask.numel() for mask in matrices)
    assert chosen.sparsity is not None and found == pytest.approx(chosen.sparsity, abs=0.02)


def two_of_four(tmp_path: Path) -> list[torch.Tensor]:
    """Weights of a model trained with 2:4 masks, of shapes that the formats of NVIDIA's tensor cores take."""
    model = tiny_model("bert", num_labels=2, num_hidden_layers=1, hidden_size=64, intermediate_size=128)
    fine_tune(model, ROWS, toy_collate, TRAINING, tmp_path, 0, "test", rules=[HARD["2:4"]])
    return [model.get_parameter(name).detach().half() for name in encoder_linear_names(model)]


def test_two_of_four_survives_the_compressed_format(tmp_path: Path):
    for weight in two_of_four(tmp_path):
        assert torch.equal(dense_from_compressed(*compressed_from_dense(weight)), weight)
    other = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).half()
    assert not torch.equal(dense_from_compressed(*compressed_from_dense(other)), other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="2:4 tensors of torch need an NVIDIA GPU of Ampere or later")
def test_two_of_four_is_accepted_by_torch(tmp_path: Path):
    for weight in two_of_four(tmp_path):
        inputs = torch.randn(64, weight.shape[1], device="cuda", dtype=torch.half)
        sparse = torch.sparse.to_sparse_semi_structured(weight.cuda())
        expected = torch.nn.functional.linear(inputs, weight.cuda())
        torch.testing.assert_close(torch.nn.functional.linear(inputs, sparse), expected, rtol=1e-2, atol=1e-2)


def test_all_cases_were_covered():
    assert (len(HARD), len(GATED)) == (20, 6)


# The masks of `early` change no more after the checkpoint that the later stop leaves.
RESUMED = ("magnitude", "early", "RigL", "activation", "fisher", "movement", "hard concrete", "soft mask")


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stop_at", [5, 9])
def test_an_interrupted_run_ends_where_a_whole_one_does(name: str, stop_at: int, trained: Trained, tmp_path: Path):
    chosen, model = (HARD | GATED)[name], small()
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "stopped", [chosen], Interrupting(stop_at))
    got = train(model, tmp_path / "stopped", [chosen])
    assert_alike(trained(name), (model, got))


def assert_alike(whole: tuple[PreTrainedModel, FineTuned], other: tuple[PreTrainedModel, FineTuned]) -> None:
    expected, got = ((one.state_dict(), done.masks, done.film.state()) for one, done in (whole, other))
    for one, found in zip(expected, got, strict=True):
        assert one.keys() == found.keys() and all(torch.equal(tensor, found[key]) for key, tensor in one.items())


def test_a_finished_run_is_found_again(tmp_path: Path):
    late = rule(schedule="one_shot", start=When(percent=100), stop=When(percent=100))
    models = (small(), small())
    expected, got = train(models[0], tmp_path, [late]), train(models[1], tmp_path, [late], Interrupting(1))
    assert_alike((models[0], expected), (models[1], got))


@pytest.fixture
def any_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is taken as it is, as in a script that gives it to the trainer."""
    monkeypatch.setattr(Checkpoints, "_fault", lambda self, checkpoint: None)


@pytest.mark.usefixtures("any_checkpoint")
def test_other_rules_than_the_checkpoints_are_named(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, [rule()], Interrupting(5))
    with pytest.raises(UserError, match=r"other sparsity rules; different: rules\.0\.criterion, rules\.0\.sparsity;"):
        train(small(), tmp_path, [rule(sparsity=0.6, criterion="random")])


@pytest.mark.usefixtures("any_checkpoint")
def test_a_checkpoint_without_masks_is_refused(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, [], Interrupting(5))
    with pytest.raises(UserError, match="has no masks"):
        train(small(), tmp_path, [rule()])


@pytest.mark.usefixtures("any_checkpoint")
def test_a_mask_of_another_size_is_refused(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path, [rule()], Interrupting(5))
    file = tmp_path / "checkpoint-3" / STATE_FILE
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    state = load_file(file)
    save_file(state | {"rule0/keep/0": state["rule0/keep/0"][:-1].clone()}, file, metadata=metadata)
    with pytest.raises(UserError, match=r"does not fit the model; got 1023 units; allowed: 1024 units"):
        train(small(), tmp_path, [rule()])


def test_a_leak_is_found(tmp_path: Path):
    model = small()
    sparsifier = Sparsifier(model, [rule(schedule="one_shot")], scope_names(model), layout_of(model).groups)
    sparsifier.begin(Times(total=10, per_epoch=4))
    sparsifier.before_step(0, None)
    sparsifier.check()
    name, mask = next(iter(sparsifier.masks.items()))
    with torch.no_grad():
        model.get_parameter(name)[~mask] = 1.0
    with pytest.raises(LeakError, match=r"512 pruned weights of .*query\.weight are not zero"):
        sparsifier.check()
    sparsifier.after_step()
    sparsifier.check()


def test_a_leak_past_a_gate_is_found():
    model = small()
    sparsifier = Sparsifier(model, [GATED["movement"]], scope_names(model), layout_of(model).groups)
    sparsifier.begin(Times(total=10, per_epoch=4))
    sparsifier.finish(10)
    sparsifier.check()
    parametrize.remove_parametrizations(model.get_submodule("bert.encoder.layer.0.output.dense"), "weight", False)
    with pytest.raises(LeakError, match=r"384 pruned weights of .*output\.dense\.weight are not zero"):
        sparsifier.check()


def test_masks_of_an_earlier_training_stay(trained: Trained, tmp_path: Path):
    model, outcome = trained("magnitude")
    first = outcome.masks
    outcome = train(model, tmp_path / "two", [], held=first)
    assert zeros(model, first) == 0 and outcome.masks.keys() == first.keys()
    more = train(model, tmp_path / "three", [rule(initial=0.5, sparsity=0.75)], held=first).masks
    assert all(not bool((mask & ~first[name]).any()) for name, mask in more.items())
    assert float(next(iter(more.values())).float().mean()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", ["soft movement", "movement", "hard concrete", "soft mask", "heads", "delete"])
def test_masks_of_an_earlier_training_stay_under_every_kind_of_rule(name: str, trained: Trained, tmp_path: Path):
    model, outcome = trained("magnitude")
    first = outcome.masks
    later = (HARD | GATED | {"delete": rule(update="delete", schedule="one_shot")})[name]
    started = {} if name == "heads" else {"initial": 0.5, "sparsity": 0.6}
    outcome = train(model, tmp_path / "two", [later.model_copy(update=started)], held=first)
    assert zeros(model, first) == 0 and set(outcome.masks) >= set(first)
    assert all(not bool((outcome.masks[name] & ~mask).any()) for name, mask in first.items())


@pytest.mark.parametrize("name", [*GATED, "magnitude"])
def test_a_target_under_what_earlier_masks_took_is_refused(name: str, trained: Trained, tmp_path: Path):
    model, outcome = trained("magnitude")
    first = outcome.masks
    low = rule(sparsity=0.1, initial=0.1, gate=(HARD | GATED)[name].gate)
    with pytest.raises(UserError, match=r"under the current sparsity; got 0\.1; allowed: at least 0\.5"):
        train(model, tmp_path / "two", [low], held=first)


def test_information_deletion_zeroes_once_and_holds_nothing(tmp_path: Path):
    model, seen = small(), []
    deleting = rule(schedule="one_shot", update="delete")
    outcome = train(
        model, tmp_path, [deleting], lambda rows: (seen.append(_share_of_zeros(model)), toy_collate(rows))[1]
    )
    assert outcome.masks == {}
    assert seen[0] < 0.01 and _share_of_zeros(model) < 0.05


def _share_of_zeros(model: PreTrainedModel) -> float:
    weights = [model.get_parameter(name) for names in SOME for name in scope_names(model)[names]]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_dead_heads_and_neurons_are_cut_and_nothing_changes(tmp_path: Path):
    model = small()
    train(model, tmp_path, [HARD["heads"], HARD["neurons"]])
    keep = live_units(model)
    assert {name: int(mask.sum()) for name, mask in keep.items()} == {
        f"layer.{index}.{kind}": count for index in range(3) for kind, count in (("heads", 2), ("neurons", 12))
    }
    cut, batch = shrink(model, keep), tiny_batch()
    torch.testing.assert_close(cut(**batch).logits, model(**batch).logits, rtol=1e-5, atol=1e-6)


WAYS = {
    "plain": {},
    "accumulation and checkpointing": {"gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "compile": {"torch_compile": True, "torch_compile_backend": "eager"},
}
# The compiler takes seconds for each: masks, gates of weights by rank and by chance, and gates of what heads give.
COMPILED = ("magnitude", "movement", "hard concrete", "hard concrete heads")


@pytest.mark.parametrize(
    ("way", "name"), [(way, name) for way in WAYS for name in (COMPILED if way == "compile" else ("magnitude", *GATED))]
)
def test_two_lines_change_in_a_trainer_script(way: str, name: str, tmp_path: Path):
    # The compiler takes seconds for a layer, and says no more of a second one.
    model = tiny_model("bert", num_labels=2, num_hidden_layers=1)
    if "checkpointing" in way:
        model.activation_checkpointing_enable()
    trainer = sparsebert.SparseTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=6,
            per_device_train_batch_size=4,
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            logging_steps=2,
            save_strategy="no",
            **WAYS[way],
        ),
        train_dataset=ROWS,
        data_collator=lambda rows: {key: value for key, value in toy_collate(rows).items() if key != "rows"},
        rules=[(HARD | GATED)[name]],
    )
    trainer.train()
    # Code that was compiled for many models is left alone by the compiler from then on, in all tests of this process,
    # and accelerate would go on compiling.
    torch.compiler.reset()
    AcceleratorState._reset_state()
    assert trainer.masks and zeros(model, trainer.masks) == 0
    assert trainer.sparsifier is not None and trainer.sparsifier.sparsity is not None
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    if name in ("magnitude", *TOP_K):
        assert logged[-1]["sparsity"] == pytest.approx(0.5, abs=0.02)
        assert logged[-1]["sparsity/bert.encoder.layer.0.attention.self.query.weight"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["magnitude", "RigL", "hard concrete"])
def test_a_loop_of_ones_own_with_accelerate(name: str):
    model, chosen = small(), (HARD | GATED)[name]
    sparsifier = Sparsifier(model, [chosen], scope_names(model), layout_of(model).groups)
    sparsifier.begin(Times(total=10, per_epoch=4))
    accelerator = Accelerator(cpu=True)
    own = [group for gated in sparsifier.gated for group in gated.parameter_groups()]
    moved = {id(parameter) for group in own for parameter in group["params"]}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in moved]
    wrapped, optimizer = accelerator.prepare(model, torch.optim.AdamW([{"params": rest}, *own], lr=1e-3))
    for step in range(10):
        loss = wrapped(**tiny_batch(step), labels=torch.tensor([0, 1, 0])).loss
        penalty = sparsifier.penalty(step)
        accelerator.backward(loss if penalty is None else loss + penalty)
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step()
        optimizer.zero_grad()
        sparsifier.check()
    sparsifier.finish(10)
    assert zeros(model, sparsifier.bake()) == 0


BAD = {
    "no such scope": (rule(scope=("atention",)), "atention"),
    "block does not divide": (rule(structure={"kind": "block", "rows": 5, "cols": 8}), "5"),
    "n over m": (rule(structure={"kind": "n:m", "n": 5, "m": 4}), "5"),
    "unknown option": (rule(structure={"kind": "block", "rows": 4, "col": 8}), "col"),
    "penalty without its gate": (rule(penalty="lagrangian"), "needs a gate"),
    "stops before it starts": (rule(start=When(steps=6), stop=When(steps=3)), "stop"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rules_are_refused_and_nothing_is_written(name: str, tmp_path: Path):
    bad, words = BAD[name]
    with pytest.raises(UserError, match=words):
        train(small(), tmp_path / "run", [bad])
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_trainers_are_the_same_class():
    assert sparsebert.SparseTrainer is SparseTrainer
