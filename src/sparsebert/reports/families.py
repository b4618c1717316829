"""Which records belong together: the seeds of one recipe make one family, and a family has a name of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsebert.recipe.load import flat_values
from sparsebert.records import ModelResult, Record, Score, Timing
from sparsebert.reports.asked import target_label

_SELF_EXPLAINING = ("model", "task", "criterion", "shape", "targets")
_STRUCTURAL = ("phases", "rules", "kind")
# Differing settings that a name holds; the page has all of them.
_MOST = 4


@dataclass(frozen=True)
class Family:
    """Finished runs that differ in the seed only, of one machine and the same data and models.

    `label` tells them from the other families.
    """

    label: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The run whose shapes and environment stand for all."""
        return self.records[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in the order given."""
        return tuple(record.seed for record in self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models of any run, in order of appearance."""
        return tuple(dict.fromkeys(model.name for record in self.records for model in record.models))

    def runs(self, name: str) -> list[tuple[Record, ModelResult]]:
        """The runs that hold the model `name`, with that model."""
        return [(record, model) for record in self.records for model in record.models if model.name == name]


def families(records: Sequence[Record], apart_from: Sequence[str] = ("seed",)) -> list[Family]:
    """Group the finished records whose recipes differ in the keys `apart_from` only.

    A failed record, or one without models, is in no family.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "finished" and record.models:
            groups.setdefault(_identity(record, apart_from), []).append(record)
    members = list(groups.values())
    labels = _labels([group[0] for group in members], apart_from)
    return [Family(label, tuple(group)) for label, group in zip(labels, members, strict=True)]


def short_name(model: str) -> str:
    """The last part of a hub name or folder."""
    return model.rstrip("/").rsplit("/", 1)[-1]


def baseline(record: Record) -> ModelResult | None:
    """The dense model that changes are against: the first one, unless it was itself made for a target or by rules."""
    if not record.models or record.models[0].target_kind is not None:
        return None
    return None if record.models[0].phases and not _without_rules(record) else record.models[0]


def _without_rules(record: Record) -> bool:
    """Whether it is of a pretraining that made nothing sparse."""
    return record.kind == "pretrain" and not any(phase.get("rules") for phase in record.recipe.get("phases", ()))


def main_score(record: Record, scores: Sequence[Score]) -> Score | None:
    """The first score of the record's main metric."""
    return next((score for score in scores if score.metric == record.main_metric), None)


Headline = Callable[[Record, ModelResult, str], Timing | None]
"""Gives the timing of a record's model, of a scope, in the setting that the record's targets are about."""


def headlines(records: Iterable[Record]) -> Headline:
    """`headline` for the models of these records, whose settings are worked out once for each of them."""
    wanted = {id(record): _headline_setting(record) for record in {id(one): one for one in records}.values()}

    def found(record: Record, model: ModelResult, scope: str) -> Timing | None:
        fitting = (t for t in model.timings if t.scope == scope and setting(t)[1:] == wanted[id(record)])
        return next(fitting, None)

    return found


def headline(record: Record, model: ModelResult, scope: str) -> Timing | None:
    """The timing of `model` in the setting and the runtime that the record's targets are about."""
    return headlines([record])(record, model, scope)


def setting(timing: Timing) -> tuple[str, int, int, str, str, int]:
    """What has to be equal for two times to be compared: scope, batch, length, backend, dtype, threads."""
    return (timing.scope, timing.batch, timing.length, timing.backend, timing.dtype, timing.threads)


def _headline_setting(record: Record) -> tuple[int, int, str, str, int] | None:
    measure: dict[str, Any] = record.recipe.get("measure") or {}
    found = [t for model in record.models for t in model.timings]
    # A runtime that runs the whole as one program has no times of encoders.
    for timing in sorted(found, key=lambda one: one.scope != "encoder"):
        had = {"batch": timing.batch, "length": timing.length, "runtime": timing.backend}
        if all((measure.get(name) or value) == value for name, value in had.items()):
            return setting(timing)[1:]
    return None


def _identity(record: Record, apart_from: Sequence[str]) -> str:
    recipe = {key: value for key, value in record.recipe.items() if key not in apart_from}
    where = (record.environment.cpu, record.environment.gpu, record.environment.threads)
    return json.dumps([record.task, recipe, where, _made_from(record)], sort_keys=True)


def _made_from(record: Record) -> dict[str, Any] | None:
    """Content of data and models: under the same paths others may lie by now. None where it is not known."""
    return record.inputs and record.inputs.model_dump(mode="json", include={"model", "teachers", "data", "labels"})


def _labels(firsts: Sequence[Record], apart_from: Sequence[str]) -> list[str]:
    """What their recipes are called, and behind it what tells those of one name apart."""
    names = [str(record.recipe.get("name") or "") for record in firsts]
    labels = list(names)
    for name in dict.fromkeys(names):
        alike = [place for place, other in enumerate(names) if other == name]
        if name and len(alike) == 1:
            continue
        # One without a name has nothing else to be told from all others by.
        among = alike if name else list(range(len(firsts)))
        texts = dict(zip(among, _told_apart([firsts[place] for place in among], apart_from), strict=True))
        for place in alike:
            labels[place] = f"{name}, {texts[place]}" if name else texts[place]
    return labels


def _told_apart(firsts: Sequence[Record], apart_from: Sequence[str]) -> list[str]:
    flat = [_settings(record) for record in firsts]
    keys = sorted({key for values in flat for key in values} - set(apart_from), key=_label_order)
    differing = [key for key in keys if len({repr(values.get(key)) for values in flat}) > 1]
    texts = [", ".join(_say(key, values[key]) for key in differing[:_MOST] if _has(values, key)) for values in flat]
    texts = [text or _subject(record) for text, record in zip(texts, firsts, strict=True)]
    machines = [_machine(record) for record in firsts]
    if len(set(texts)) < len(texts) and len(set(machines)) > 1:
        texts = [f"{text}, {machine}" for text, machine in zip(texts, machines, strict=True)]
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text} ({number})" for number, text in enumerate(texts, 1)]


def _settings(record: Record) -> dict[str, object]:
    """By dotted name; its targets as one text, none = empty."""
    targets = [target_label(target["kind"], float(target["value"])) for target in record.recipe.get("targets") or ()]
    rest = {key: value for key, value in record.recipe.items() if key != "targets"}
    return dict(flat_values(rest)) | {"task": record.task, "targets": " ".join(targets)}


def _has(values: Mapping[str, object], key: str) -> bool:
    """Whether there is something to say: that a recipe has no name of its own, or no targets, is nothing."""
    return key in values and values[key] not in (None, "", [], {})


def _label_order(key: str) -> tuple[int, str]:
    first = (*_SELF_EXPLAINING, "sparsity")
    return (first.index(key) if key in first else len(first), key)


def _machine(record: Record) -> str:
    where = record.environment
    return ", ".join(
        [*filter(None, (where.cpu, where.gpu)), f"{where.threads} thread{'s' if where.threads > 1 else ''}"]
    )


def _subject(record: Record) -> str:
    return f"{short_name(str(record.recipe.get('model', record.kind)))} on {record.task}"


def _say(key: str, value: object) -> str:
    if key == "model":
        return short_name(str(value))
    if key in _SELF_EXPLAINING or key == "name":
        return str(value)
    parts = [part for part in key.split(".") if part not in _STRUCTURAL and not part.isdecimal()]
    return f"{'.'.join(parts) or key}={value}"
