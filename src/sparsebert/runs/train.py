"""`train`: the phases of a recipe one after the other, then what is dead is cut away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from safetensors.torch import load_file, save
from transformers import PreTrainedModel, set_seed

from sparsebert import registry
from sparsebert.files import write_bytes_atomically
from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.models.load import save_model
from sparsebert.models.surgeon import Keep, live_units, shrink
from sparsebert.progress import line
from sparsebert.pruning.shapes import Heads, heads_left, shape_of
from sparsebert.recipe.schema import Component, Phase, Rule
from sparsebert.recipe.train import TrainRecipe
from sparsebert.records import MASK_FILM, SparsityAt, TrainingRun
from sparsebert.records.film import STEPS
from sparsebert.runs.context import RunContext
from sparsebert.runs.dense import Dense, dense_entry, dense_model
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.sparse_model import packing_of, save_sparse, start_of, zeros_by_tensor
from sparsebert.runs.stages import Done, Stage, once
from sparsebert.runs.teachers import Teacher, check_teacher, distiller_of, given_teacher, teacher_doubts
from sparsebert.runs.thresholds import choose_own
from sparsebert.runs.training import train_model
from sparsebert.sparse.hard import make_penalty
from sparsebert.sparse.schedules import Times, moment
from sparsebert.sparse.sites import Masks
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.training.live_distill import Teaching

MASKS = "masks.safetensors"
DONE, MODEL, CHECKPOINTS = "done.json", "model", "training"
_NO_DENSE = (
    "No dense model was trained, so what the zeros cost in score is not measured, and speeds are against the model "
    "that training started from; to train one as well give --set baseline=true"
)
TrainContext = RunContext[TrainRecipe]


class PhaseDone(BaseModel):
    """What a finished phase left behind, besides its model and masks."""

    run: TrainingRun
    timeline: tuple[SparsityAt, ...]
    heads: Heads | None = Field(default=None, description="numbers of the heads left by layer, where some were cut")


class Train(RunType[TrainRecipe]):
    """Sparse training: a sparse model, after the dense one where a teacher or a baseline was trained."""

    recipe = TrainRecipe
    name: ClassVar[str] = "sparse"
    """Of the model, and of its folder."""

    def check(self, context: TrainContext) -> int:
        """The phases, and the dense model if there is one."""
        check_phases(context)
        return len(context.recipe.phases) + has_dense(context)

    def make(self, context: TrainContext) -> Made:
        """Carry out the phases; finished ones are found again. They are sound, as `check` says."""
        notes = (*unused_targets(context.recipe), *teacher_doubts(context, context.recipe.given_teachers))
        for note in notes:
            line(note)
        dense = dense_model(context, context.recipe.dense) if has_dense(context) else None
        entries = [] if dense is None else [dense_entry(context, dense)]
        start = context.fresh()
        entries.append(_train_phases(context, dense, start, self.name))
        if dense is None and any(phase.rules for phase in context.recipe.phases):
            notes = (*notes, _NO_DENSE)
        return Made(entries, notes, start_of(start), has_dense=dense is not None)


def check_phases(context: TrainContext) -> None:
    """Raises UserError for rules that the model cannot carry out, and for teachers that cannot teach it.

    Trains and writes nothing, so that a mistake costs no training.
    """
    held: Masks = {}
    for phase in context.recipe.phases:
        model = context.fresh()
        check_teacher(context, phase, model)
        held = _rehearse(context, phase, model, held)


def unused_targets(recipe: TrainRecipe) -> tuple[str, ...]:
    """A line for every rule that aims at no sparsity: its gate follows no schedule, and no lagrangian leads it."""
    found = []
    for phase in recipe.phases:
        for number, rule in enumerate(phase.rules, 1):
            if rule.gate is None or _aims(rule, rule.gate):
                continue
            how = f"{rule.gate.kind} with {rule.penalty.kind}" if rule.penalty else f"{rule.gate.kind} alone"
            found.append(
                f"Rule {number} of phase '{phase.name}' does not aim at a sparsity: {how} takes away what the weight "
                "of the penalty asks for; a lagrangian penalty would lead to the target"
            )
    return tuple(found)


def _aims(rule: Rule, gate: Component) -> bool:
    if registry.make("gate", gate.kind, gate.options).scheduled:
        return True
    return rule.penalty is not None and make_penalty(rule.penalty, gated=True).multipliers > 0


def _rehearse(context: TrainContext, phase: Phase, model: PreTrainedModel, held: Masks) -> Masks:
    """The masks of a phase whose rules act at their first and last moments on an untrained model, by magnitude.

    None after gates, whose masks only training gives.
    """
    if phase.cuts:
        _apply(model, held)
        model = shrink(model, live_units(model))
        held = _outside(model, held)
    training = phase.training
    per_epoch = math.ceil(len(context.train) / training.batch_size)
    total = training.max_steps if training.max_steps > 0 else math.ceil(training.epochs * per_epoch)
    times = Times(total, per_epoch)
    _sparsifier(context, model, phase.rules, held).begin(times)
    if any(rule.gate is not None for rule in phase.rules):
        return {}
    by_magnitude = [rule.model_copy(update={"criterion": Component(kind="magnitude")}) for rule in phase.rules]
    sparsifier = _sparsifier(context, model, by_magnitude, held)
    sparsifier.begin(times)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    moments = {moment(when, times) for rule in phase.rules for when in (rule.start, rule.stop)}
    for step in sorted(moments):
        sparsifier.before_step(step, None)
    return sparsifier.masks


def _sparsifier(context: TrainContext, model: PreTrainedModel, rules: Sequence[Rule], held: Masks) -> Sparsifier:
    return Sparsifier(
        model,
        rules,
        scope_names(model),
        layout_of(model).groups,
        seed=context.recipe.seed,
        sparsity=context.recipe.sparsity,
        held=held,
        loss=lambda: 0.0,
    )


def _train_phases(context: TrainContext, dense: Dense | None, start: PreTrainedModel, name: str) -> Entry:
    phases = context.recipe.phases
    folders = [context.work / f"phase{index}-{phase.name}" for index, phase in enumerate(phases)]
    done: dict[str, PhaseDone] = {}
    digest = "" if dense is None else dense.digest
    for index, phase in enumerate(phases):
        last = done[phases[index - 1].name] if index else None
        found = _phase(context, index, folders, dense, digest, last)
        done[phase.name], digest = found.result, found.digest
    trained = context.load(folders[-1] / MODEL)
    keep = live_units(trained)
    small, difference = _cut(context, trained, keep)
    heads = heads_left(trained, keep, numbers=done[phases[-1].name].heads)
    folder = context.folder / name
    choose_own(context, small)
    save_sparse(small, context.tokenizer, folder, packing_of(context.recipe), packed=context.recipe.packed)
    _keep_film(context, folders)
    facts = {
        "shape": shape_of(small, range(len(layout_of(start).layers)), start, heads),
        "phases": {name: one.run for name, one in done.items()},
        "timeline": tuple(row for one in done.values() for row in one.timeline),
        "sparsity_by_tensor": zeros_by_tensor(trained),
        "output_difference": difference,
    }
    model = context.load(folder)
    predictions = context.predict(model)
    context.say(folder.name, predictions)
    return Entry(folder.name, folder, model, predictions, facts)


def _keep_film(context: TrainContext, folders: Sequence[Path]) -> None:
    """Put the films of the phases in which masks were looked at beside the record, under the phases' names."""
    films = {
        phase.name: film
        for phase, folder in zip(context.recipe.phases, folders, strict=True)
        if len((film := load_file(folder / MASK_FILM))[STEPS])
    }
    if films:
        tensors = {f"{name}/{key}": value for name, film in films.items() for key, value in film.items()}
        write_bytes_atomically(context.folder / MASK_FILM, save(tensors))


def has_dense(context: TrainContext) -> bool:
    """Whether there is a dense model to compare with: as a teacher, because it is asked for, or as it is given."""
    if context.recipe.baseline or any(phase.teacher == "dense" for phase in context.recipe.phases):
        return True
    return context.is_tuned


def _phase(
    context: TrainContext,
    index: int,
    folders: Sequence[Path],
    dense: Dense | None,
    after: str,
    last: PhaseDone | None,
) -> Done[PhaseDone]:
    """A phase that is found again, or carried out; its model is not needed where the next one is finished."""
    phase, folder, before = context.recipe.phases[index], folders[index], folders[index - 1] if index else None
    context.steps.begin(f"Phase {phase.name}")
    return once(
        _stage(folder),
        PhaseDone,
        lambda: _carry_out(context, phase, folder, before, dense, last),
        after,
        later=[_stage(other) for other in folders[index + 1 : index + 2]],
    )


def _stage(folder: Path) -> Stage:
    return Stage(folder / DONE, (folder / MODEL, folder / MASKS, folder / MASK_FILM), folder / CHECKPOINTS)


def _carry_out(
    context: TrainContext,
    phase: Phase,
    folder: Path,
    before: Path | None,
    dense: Dense | None,
    last: PhaseDone | None,
) -> PhaseDone:
    model = context.fresh() if before is None or phase.resets else context.load(before / MODEL)
    held = load_file(before / MASKS) if before is not None else {}
    if phase.resets:
        _apply(model, held)
    heads = None if last is None else last.heads
    if phase.cuts:
        keep = live_units(model)
        heads = heads_left(model, keep, numbers=heads)
        model = _cut(context, model, keep)[0]
        held = _outside(model, held)
    set_seed(context.recipe.seed)
    outcome = train_model(
        context,
        model,
        phase.training,
        folder / CHECKPOINTS,
        phase.name,
        distiller=_distiller(context, phase, dense, model),
        rules=phase.rules,
        sparsity=context.recipe.sparsity,
        held=held,
        hold_zeros=phase.cuts or (context.recipe.hold_zeros and (before is None or phase.resets)),
    )
    save_model(model, context.tokenizer, folder / MODEL)
    masks = {name: mask.contiguous() for name, mask in outcome.masks.items()}
    write_bytes_atomically(folder / MASKS, save(masks))
    write_bytes_atomically(folder / MASK_FILM, save(outcome.film.tensors()))
    return PhaseDone(run=outcome.run, timeline=tuple(_row(entry, phase.name) for entry in outcome.log), heads=heads)


def _outside(model: PreTrainedModel, masks: Masks) -> Masks:
    """The masks of what a cut leaves alone; those of the encoder's linear weights are the zeros that are left."""
    cut = set(encoder_linear_names(model))
    outside = {name: mask for name, mask in masks.items() if name not in cut}
    return {name: mask for name, mask in outside.items() if mask.shape == model.get_parameter(name).shape}


def _distiller(context: TrainContext, phase: Phase, dense: Dense | None, model: PreTrainedModel) -> Teaching | None:
    if phase.teacher is None:
        return None
    teacher, folder = _teacher(context, phase, dense)
    return distiller_of(context, phase, teacher, folder, model)


def _teacher(context: TrainContext, phase: Phase, dense: Dense | None) -> tuple[Teacher, Path]:
    if dense is not None and phase.teacher == "dense":
        return Teacher(dense.model, context.train, context.collate), context.work / "teacher"
    index = context.recipe.given_teachers.index(str(phase.teacher))
    return given_teacher(context, phase), context.work / f"teacher-{index}"


@torch.no_grad()
def _apply(model: PreTrainedModel, masks: Mapping[str, torch.Tensor]) -> None:
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def _cut(context: TrainContext, trained: PreTrainedModel, keep: Keep) -> tuple[PreTrainedModel, float | None]:
    """The model without its dead units, and the largest |logit| difference over the largest logit (none: all live)."""
    if all(bool(mask.all()) for mask in keep.values()):
        return trained, None
    small = shrink(trained, keep)
    return small, context.checked_difference(trained, small)


def _row(entry: Mapping[str, float], phase: str) -> SparsityAt:
    own = {key: value for key, value in entry.items() if key.startswith("rule")}
    return SparsityAt(
        step=int(entry["step"]), loss=entry["loss"], phase=phase, sparsity=entry.get("sparsity"), more=own
    )
