"""Tables of models that tag words."""

from __future__ import annotations

from results_tables.values import percent, records, signed, table
from sparsebert.records import ModelResult, Score

STUDY = "tokens-minilm"


def family() -> str:
    """F1 of entities and accuracy of tags against the dense model, and what was removed."""
    lines = [_member(model) for model in records(STUDY)["small-0"].models]
    header = ["model", "entity F1 (change, 95 % interval)", "tag accuracy", "encoder weights removed"]
    return table([*header, "of all parameters", "fewer bytes on disk"], lines)


def _member(model: ModelResult) -> list[str]:
    found = {one.metric: one for one in model.scores}
    gone = model.sparsity
    parts = [percent(part) for part in (gone.encoder_linear, gone.whole_model, gone.bytes_on_disk)]
    return [model.name, _f1(found["entity_f1"]), f"{100 * found['tag_accuracy'].value:.1f}", *parts]


def _f1(one: Score) -> str:
    if one.change_low is None or one.change_high is None:
        return f"{100 * one.value:.1f}"
    dense = next(own for own in records(STUDY)["small-0"].models[0].scores if own.metric == one.metric)
    apart = f"{signed(100 * one.change_low)} to {signed(100 * one.change_high)}"
    return f"{100 * one.value:.1f} ({signed(100 * (one.value - dense.value))}, {apart})"
