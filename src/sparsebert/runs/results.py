"""What a run says of its models: sizes, sparsities, scores, and times of all of them in the same rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save

from sparsebert.counts import Footprint, footprint, sizes, sparsity
from sparsebert.errors import UserError
from sparsebert.files import digests, write_bytes_atomically
from sparsebert.measurement.bench import BenchRow, bench
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import saved_part
from sparsebert.models.source import disk_bytes
from sparsebert.models.storage import stored_as
from sparsebert.progress import busy
from sparsebert.records import PREDICTIONS, ModelResult, Score
from sparsebert.runs.context import RunContext
from sparsebert.runs.pseudo_perplexity import pseudo_perplexities
from sparsebert.runs.run_type import Entry, Made
from sparsebert.runs.thresholds import recorded

CARD = "README.md"


def measure_models(context: RunContext, made: Made) -> tuple[ModelResult, ...]:
    """All models of a run, in the order of `made.entries`; see Made for what they are measured against."""
    measure, more = context.recipe.measure, pseudo_perplexities(context, made.entries)
    if not measure.timed:
        return tuple(_result(context, made, entry, (), more) for entry in made.entries)
    models = {entry.name: entry.model for entry in made.entries}
    if not made.has_dense and made.start is not None:
        models = {"dense": made.start.model, **models}
    with busy("Measuring the family") as update:
        runtimes = list(dict.fromkeys(["eager", measure.runtime]))
        rows = bench(
            models,
            context.settings,
            runtimes,
            rounds=measure.rounds,
            threads=measure.threads,
            energy=measure.energy,
            progress=update,
        )
        return tuple(_result(context, made, entry, rows, more) for entry in made.entries)


def write_predictions(context: RunContext, entries: Sequence[Entry]) -> None:
    """Logits and labels of every model on every validation split, so that runs can be compared example by example."""
    tensors: dict[str, np.ndarray] = {}
    for entry in entries:
        for split, outputs in entry.predictions.items():
            # Not of words, whose labels are numbers of tags: metrics are of the entities that these stand for.
            logits, labels = context.scored(split, outputs)
            tensors |= {f"{entry.name}/{split}/logits": logits, f"{split}/labels": labels}
    write_bytes_atomically(context.folder / PREDICTIONS, save({k: v.copy(order="C") for k, v in tensors.items()}))


def _result(
    context: RunContext,
    made: Made,
    entry: Entry,
    rows: Iterable[BenchRow],
    more: Mapping[str, tuple[Score, ...]],
) -> ModelResult:
    first, setting = made.entries[0], context.setting
    compared = None if entry is first else first.predictions
    is_dense = entry is first and made.has_dense
    before = _footprint(first) if made.start is None or is_dense else made.start.footprint
    after = _footprint(entry)
    return _checked(
        entry,
        name=entry.name,
        folder=entry.folder.name,
        model_type=entry.model.config.model_type,
        architecture=type(entry.model).__name__,
        scores=(
            *context.score(entry.predictions, compared),
            *more.get(entry.name, ()),
            *_train_scores(context, entry),
        ),
        decisions=context.decide(entry.predictions, compared),
        thresholds=recorded(context, entry.model),
        sparsity=sparsity(before, after),
        size=sizes(
            entry.model, encoder_linear_names(entry.model), (setting.batch, setting.length), after.bytes_on_disk
        ),
        stored=stored_as(saved_part(entry.model), entry.folder),
        files={name: known for name, known in digests([entry.folder], entry.folder).items() if name != CARD},
        timings=tuple(timing for row in rows if row.model == entry.name for timing in row.timings),
        **entry.facts,
    )


def _train_scores(context: RunContext, entry: Entry) -> tuple[Score, ...]:
    """Metrics and mean loss on the train rows, where the recipe asks for them."""
    if not context.recipe.score_train:
        return ()
    with busy(f"Scoring {entry.name} on the train rows"):
        return (entry.context or context).train_scores(entry.model)


def _checked(entry: Entry, **fields: Any) -> ModelResult:
    """Raises UserError for facts of a run type that are missing, unknown or of another type."""
    try:
        return ModelResult(**fields)
    except ValidationError as error:
        said = " | ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(
            f"The facts of the model '{entry.name}' do not fit: {said}", fix="see records.ModelResult for its fields"
        ) from None


def _footprint(entry: Entry) -> Footprint:
    return footprint(entry.model, encoder_linear_names(entry.model), disk_bytes(entry.folder))
