"""`compress`: the dense model first, then one smaller model a target, each from the last."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, TrainerCallback

from sparsebert import registry
from sparsebert.counts import zero_share
from sparsebert.data.smaller_vocabulary import cut_tokenizer
from sparsebert.environment import cpu_name
from sparsebert.errors import UnreachableError, UserError
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.load import save_model
from sparsebert.models.smaller_vocabulary import check_ids
from sparsebert.models.source import disk_bytes
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import Keep, mask_model, shrink
from sparsebert.progress import line
from sparsebert.pruning.assemble import masked_model
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.costs import measured_table
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found, scorer
from sparsebert.pruning.shapes import head_importance, heads_left, shape_of
from sparsebert.pruning.target_kinds import weakest_first
from sparsebert.pruning.targets import Goal, meet
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Target
from sparsebert.records import ModelResult, Score, Shape
from sparsebert.runs.context import RunContext, set_up
from sparsebert.runs.dense import Dense, Recovering, Trained, dense_entry, dense_model
from sparsebert.runs.hidden import check_hidden, narrow_model
from sparsebert.runs.max_drop import answers, fell_too_far, least_drop, too_far, too_few_examples
from sparsebert.runs.run_type import Entry, Made, RunType
from sparsebert.runs.size_limit import check_reach, fit, limit_for, words
from sparsebert.runs.sparse_model import packing_of
from sparsebert.runs.stages import Stage, once
from sparsebert.runs.vocabulary import SmallerVocabulary, ids_that_stay, smaller_vocabulary
from sparsebert.timing import torch_threads

# A trained model has none, but for a few weights that half precision rounded to zero.
MOST_ZEROS = 0.01
# Sparsities that `max_drop` tries one after the other.
LADDER = (0.3, 0.5, 0.65, 0.75, 0.82, 0.88, 0.92, 0.95)
CompressContext = RunContext[CompressRecipe]


class Compress(RunType[CompressRecipe]):
    """A family of smaller models by pruning after training (ZipLM, arXiv:2302.04089, with other error measures)."""

    recipe = CompressRecipe

    def set_up(self, recipe: CompressRecipe, folder: Path, callbacks: Sequence[TrainerCallback]) -> CompressContext:
        """With texts in parts that a smaller vocabulary, which makes more tokens of them, reads whole too."""
        vocabulary = recipe.vocabulary
        if vocabulary is None:
            return set_up(recipe, folder, callbacks)
        return set_up(
            recipe,
            folder,
            callbacks,
            lambda own, task: [cut_tokenizer(own, ids_that_stay(task, own, vocabulary))],
        )

    def check(self, context: CompressContext) -> int:
        """The dense model, and for each target a search and a training."""
        targets, vocabulary = wanted_targets(context.recipe), context.recipe.vocabulary
        check_blocks(context.start())
        if context.recipe.hidden_size is not None:
            check_hidden(context, context.recipe.hidden_size)
        ids = None
        if vocabulary is not None:
            ids = ids_that_stay(context.whole, context.tokenizer, vocabulary)
            check_ids(context.start().config, ids)
            cut_tokenizer(context.tokenizer, ids)
        check_reach(context, ids)
        cut = len(targets) + (context.recipe.hidden_size is not None)
        return (1 if vocabulary is None else 2) + cut * (1 if context.recipe.finetune is None else 2)

    def make(self, context: CompressContext) -> Made:
        """The dense model and one member a target, or for `max_drop` members until one falls too far."""
        early = too_few_examples(context, least_drop(context))
        if early:
            line(f"Note: {early}")
        dense = dense_model(context, context.recipe.dense)
        first = dense_entry(context, dense)
        dense_value = context.main_value(first.predictions)
        if context.recipe.max_drop is not None and dense_value is None:
            raise UserError(
                f"The dense model has no {context.spec.main_metric}, so no drop", fix="give targets instead"
            )
        entries, smaller, notes = [first], None, ()
        if context.recipe.vocabulary is not None:
            smaller = smaller_vocabulary(context, dense, context.recipe.vocabulary)
            notes, value = smaller.notes, context.main_value(smaller.entry.predictions)
            if context.recipe.max_drop is not None and fell_too_far(context, dense_value, value):
                return Made(entries, (*notes, too_far(context, smaller.entry.name, dense_value, value)))
            entries.append(smaller.entry)
        maker = FamilyMaker(context, dense, smaller)
        if context.recipe.hidden_size is not None:
            entries.append(maker.narrow(context.recipe.hidden_size))
        for target in wanted_targets(context.recipe):
            try:
                entry = maker.make(target)
            except UnreachableError as error:
                if context.recipe.targets:
                    raise
                # The ladder of `max_drop` ends where models cannot get smaller.
                return Made(entries, (*notes, *maker.notes, str(error)))
            value = context.main_value(entry.predictions)
            if fell_too_far(context, dense_value, value):
                return Made(entries, (*notes, *maker.notes, too_far(context, entry.name, dense_value, value)))
            entries.append(entry)
        return Made(entries, (*notes, *maker.notes))

    def conclude(self, context: CompressContext, models: Sequence[ModelResult]) -> Sequence[str]:
        """For `max_drop`: which model is the smallest, and which the fastest."""
        return list(answers(context, models))


def wanted_targets(recipe: CompressRecipe) -> tuple[Target, ...]:
    """The recipe's targets, or for `max_drop` a ladder of sparsities; none for a smaller vocabulary alone.

    Raises UserError where nothing is asked for.
    """
    if recipe.targets:
        return weakest_first(recipe.targets)
    if recipe.max_drop is None and (recipe.vocabulary is not None or recipe.hidden_size is not None):
        return ()
    if recipe.max_drop is None:
        fix = "give --speedup, --latency, --size, --sparsity, --max-drop, --vocabulary or --hidden-size"
        if recipe.weights is not None or recipe.embedding_weights is not None:
            fix += "; to store a model in fewer bits alone, use `sparsebert pack --weights`"
        raise UserError("Nothing to do: no target", fix=fix)
    return tuple(Target(kind="sparsity", value=value) for value in LADDER)


def check_blocks(model: PreTrainedModel) -> None:
    """Raises UserError for a model whose heads and neurons cannot be searched: tables of costs are of layers alike.

    And for one with many zeros, which the updates of weights and the fine-tuning would not keep.
    """
    layers = layout_of(model).layers
    missing = [layer.index for layer in layers if 0 in layer.units.values()]
    if missing or not layers:
        what = f"layers without a head or a neuron: {', '.join(map(str, missing))}" if layers else "no layers"
        fix = "give the model that it was made from, or use `sparsebert train`"
        raise UserError("Only a model with heads and neurons in every layer can be compressed", got=what, fix=fix)
    shapes = sorted({tuple(layer.units.items()) for layer in layers})
    if len(shapes) > 1:
        raise UserError(
            "Only a model whose layers are alike can be compressed",
            got=", ".join(" and ".join(f"{count} {kind}s" for kind, count in shape) for shape in shapes),
            fix="give the model that it was made from, with all targets at once",
        )
    zeros = zero_share(model, encoder_linear_names(model))
    if zeros > MOST_ZEROS:
        raise UserError(
            "Compressing a model that is sparse itself would fill in its zeros",
            got=f"{zeros:.1%} of the encoder's weights are zero",
            allowed=f"up to {MOST_ZEROS:.0%}",
            fix="give the model that it was made from, or use `sparsebert train`",
        )


class Member(BaseModel):
    """One model of the family before fine-tuning: its shape, and how it was found.

    `origin` holds for each of its layers the number of the dense model's layer that it was. `packing` is how it is
    stored, none = as the recipe says, in `most_bytes` at the most; `cut_further` if the target alone asks for less.
    """

    model_config = ConfigDict(frozen=True)

    target: Target
    shape: Shape
    origin: tuple[int, ...]
    divergence: float
    tried: int
    achieved: float
    one_shot_scores: tuple[Score, ...]
    output_difference: float
    packing: Packing | None = None
    most_bytes: int | None = None
    cut_further: bool = False

    def notes(self, said: Packing) -> Iterator[str]:
        """What was done for the sake of bytes that the recipe does not say."""
        name, packing = self.target.label, self.packing or said
        # Tables of embeddings that nothing is said of are stored as the layers are.
        if words(packing) != words(said):
            yield f"{name} is stored in {words(packing)}, so that its file is small enough"
        if self.cut_further:
            yield f"{name} has a smaller shape than its target alone asks for, so that its file is small enough"

    def check_saved(self, folder: Path) -> None:
        """Raises UnreachableError where the finished model takes more bytes than its shape was to take."""
        if self.most_bytes is not None and disk_bytes(folder) > self.most_bytes:
            raise UnreachableError(
                f"The file of {self.target.label} is too large",
                got=f"{disk_bytes(folder):,} bytes",
                allowed=f"up to {self.most_bytes:,}",
                fix="its training gave weights zeros whose places take bytes; ask for a little more",
            )


@dataclass(frozen=True)
class Cut:
    """A smaller model, its largest |logit| difference from the masked one over the largest, and the masks."""

    small: PreTrainedModel
    difference: float
    keep: Keep


class LatencyTable(BaseModel):
    """The measured table, as it is kept on disk."""

    table: CostTable


class FamilyMaker:
    """Makes members one after the other; holds the latency table and the model that the next one starts from.

    With a smaller vocabulary they start from the dense model that has it, which is their teacher too. With a smaller
    hidden size they start from the model that `narrow` made, and the dense one stays their teacher.
    """

    def __init__(self, context: CompressContext, dense: Dense, smaller: SmallerVocabulary | None = None) -> None:
        self._smaller = smaller
        if smaller is not None:
            context, dense = smaller.context, smaller.dense
        self._context = context
        self._dense = dense
        recipe = context.recipe
        self._recovery = Recovering(dense, recipe.finetune, recipe.distill, packing_of(recipe))
        self._start = dense.model
        self._notes: list[str] = []
        self._last, self._origin, self._shape = dense.model, dense.origin, dense.shape
        self._last_digest = dense.digest
        self._calibrated: Calibrated | None = None

    def narrow(self, size: int) -> Entry:
        """Cut the hidden states to `size` dimensions and train what is left; all later members start from that."""
        made = narrow_model(self._context, self._dense, self._recovery, size)
        self._start = self._last = made.model
        self._last_digest = made.digest
        return made.entry

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done for the sake of bytes, member by member."""
        return tuple(self._notes)

    def make(self, target: Target) -> Entry:
        """Find, cut and fine-tune the model for one target; its folder holds the finished model."""
        context, recovery = self._context, self._recovery
        work, folder = context.work / target.label, context.folder / target.label
        cut, last = work / "one-shot", recovery.stage(work, folder)
        context.steps.begin(f"{target.label}: searching what to remove")
        stage = Stage(work / "member.json", (cut,))
        found = once(stage, Member, lambda: self._find(target, cut), after=self._last_digest, later=[last])
        member = found.result
        if member.packing is not None:
            recovery = replace(recovery, packing=member.packing)
            last = recovery.stage(work, folder)
        self._notes += member.notes(self._recovery.packing)
        if recovery.training is not None:
            context.steps.begin(f"{target.label}: training what is left")
        trained = once(last, Trained, lambda: recovery.train(context, work, folder, member.origin), after=found.digest)
        member.check_saved(folder)
        model = context.load(folder)
        if recovery.training is not None:
            exact = recovery.exact(work, folder)
            self._last = model if exact == folder else context.load(exact)
            self._origin, self._shape = member.origin, member.shape
            self._calibrated, self._last_digest = None, trained.digest
        return self._entry(member, trained.result, folder, model)

    def _entry(self, member: Member, trained: Trained, folder: Path, model: PreTrainedModel) -> Entry:
        facts = {
            "target_kind": member.target.kind,
            "target_value": member.target.value,
            "shape": member.shape,
            "one_shot_scores": member.one_shot_scores if trained.run else (),
            "output_difference": member.output_difference,
            "training": trained.run,
            "vocabulary": None if self._smaller is None else self._smaller.left,
        }
        predictions = self._context.predict(model)
        self._context.say(member.target.label, predictions)
        return Entry(member.target.label, folder, model, predictions, facts, self._context)

    def _find(self, target: Target, folder: Path) -> Member:
        calibrated = self._calibrate()
        by_loss = registry.get("unit_criterion", self._context.recipe.criterion).wants_loss
        score = scorer(self._last, calibrated, self._context.collate, by_loss)
        gone = 0 if self._smaller is None else self._smaller.bytes_gone
        goal = Goal(
            target, self._context.recipe, self._context.setting, self._dense.model, self._start, self._last, gone
        )
        limit, packing = limit_for(goal, calibrated, disk_bytes(self._context.folder / "dense"))
        fitted = fit(
            replace(goal, packing=packing),
            limit,
            lambda asked: meet(asked, self._table, calibrated, score),
            lambda found: self._assemble(calibrated, found),
            self._context.work,
        )
        found, small = fitted.found, fitted.built.small
        origin = tuple(place for place, choice in zip(self._origin, found.choices, strict=True) if not choice.dropped)
        save_model(small, self._context.tokenizer, folder)
        return Member(
            target=target,
            shape=self._shape_of(small, origin, calibrated, fitted.built.keep),
            origin=origin,
            divergence=found.divergence,
            tried=found.tried,
            achieved=fitted.achieved,
            one_shot_scores=self._context.score(self._context.predict(small)),
            output_difference=fitted.built.difference,
            packing=fitted.packing,
            most_bytes=None if limit is None else limit.most,
            cut_further=fitted.cut_further,
        )

    def _shape_of(self, small: PreTrainedModel, origin: tuple[int, ...], calibrated: Calibrated, keep: Keep) -> Shape:
        """With the dense model's numbers of the heads, which are those of the last model composed with its masks."""
        dense = self._dense.model
        # A member that an older version left on disk does not say which heads it has.
        if not self._shape.kept_heads:
            return shape_of(small, origin, dense)
        numbers = tuple(self._shape.kept_heads[place] for place in self._origin)
        dropped = [index for index, place in enumerate(self._origin) if place not in origin]
        importance = head_importance(calibrated.layout, calibrated.candidates, numbers, self._origin, self._dense.shape)
        return shape_of(small, origin, dense, heads_left(self._last, keep, dropped, numbers), importance)

    def _assemble(self, calibrated: Calibrated, found: Found) -> Cut:
        masked, keep, dropped = masked_model(self._last, calibrated.candidates, found.choices)
        small = shrink(masked, keep, dropped, even=self._context.recipe.even)
        mask_model(masked, {}, dropped)
        return Cut(small, self._context.checked_difference(masked, small), keep)

    def _calibrate(self) -> Calibrated:
        if self._calibrated is None:
            recipe = self._context.recipe
            self._calibrated = calibrate(
                copy.deepcopy(self._last),
                self._dense.model,
                self._context.train,
                self._context.collate,
                recipe.criterion,
                recipe.search.examples,
                recipe.search.score_examples,
                recipe.seed,
                kind=self._context.kind,
            )
        return self._calibrated

    def _table(self, model: PreTrainedModel) -> CostTable:
        """Of the dense model, or of the one with a smaller hidden size."""
        setting, name = self._context.setting, self._context.recipe.measure.runtime
        narrow = "" if model is self._dense.model else f"-{model.config.hidden_size}"
        file = self._context.work / f"latency-{setting.batch}x{setting.length}{narrow}.json"

        def work() -> LatencyTable:
            with torch_threads(self._context.recipe.measure.threads):
                runtime = registry.get("runtime", name)
                return LatencyTable(table=measured_table(model, setting.batch, setting.length, runtime))

        return once(Stage(file), LatencyTable, work, after=f"{self._dense.digest} {cpu_name()} {name}").result.table
