"""Arms of one comparison: recipes of sparse training that differ in an ingredient, and what each of them is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsebert.recipe.load import flat_values
from sparsebert.records import ModelResult, Record
from sparsebert.reports import values as v
from sparsebert.reports.families import Family, baseline, main_score
from sparsebert.reports.rows import FamilyRow, family_rows

# What decides nothing, or is the same budget told otherwise.
_ASIDE = ("schema", "name", "seed", "phases")
MEGA = 1e6
# Less of the encoder removed says nothing of what removing costs.
_LEAST = 0.02
Settings = dict[str, str]


@dataclass(frozen=True)
class Arm:
    """A recipe beside the base, from which `settings` tell it (`criterion: magnitude → taylor`; none = it is the base).

    `row` has sizes, speed and score as in other tables. Points are 0-100, medians over seeds, each seed against the
    same seed's dense model (`change`) and the same seed's base (`worth`), with minimum and maximum. `cost` is points
    lost for each tenth of the encoder's linear weights that was removed.
    """

    family: Family
    settings: tuple[str, ...]
    row: FamilyRow
    encoder_parameters: v.Value | None
    weights_mb: v.Value | None
    change: v.Value | None
    worth: v.Value | None
    cost: v.Value | None

    @property
    def label(self) -> str:
        """Of its family."""
        return self.family.label


def comparable(groups: Sequence[Family]) -> bool:
    """Whether these are arms: two recipes or more of sparse training, of one task and model, each beside its dense."""
    firsts = [family.first for family in groups]
    alike = {(record.kind, record.task, record.recipe.get("model")) for record in firsts}
    return len(groups) > 1 and len(alike) == 1 and firsts[0].kind == "train" and all(map(baseline, firsts))


def base_of(groups: Sequence[Family]) -> Family:
    """The recipe that the others differ least from, counted in settings; of several the first."""
    told = [_settings(family.first) for family in groups]
    return groups[min(range(len(told)), key=lambda one: sum(len(_apart(told[one], other)) for other in told))]


def arms(groups: Sequence[Family]) -> list[Arm]:
    """The base first, then the others in their order. The families are `comparable`."""
    base = base_of(groups)
    ordered = [base, *(family for family in groups if family is not base)]
    return [_arm(family, base) for family in ordered]


def _arm(family: Family, base: Family) -> Arm:
    name = family.first.models[-1].name
    runs = family.runs(name)

    def each(value: Callable[[Record, ModelResult], v.Value | None]) -> v.Value | None:
        return v.over_runs(value(*run) for run in runs)

    row = next(row for row in family_rows([family]) if row.name == name)
    return Arm(
        family=family,
        settings=() if family is base else _apart(_settings(base.first), _settings(family.first)),
        row=row,
        encoder_parameters=each(lambda _, model: v.Value(model.size.encoder_linear_parameters)),
        weights_mb=each(lambda _, model: v.Value(model.size.weight_bytes / MEGA)),
        change=row.change_points,
        worth=None if family is base else _worth(family, base),
        cost=each(_cost),
    )


def _worth(family: Family, base: Family) -> v.Value | None:
    """Points above the base, seed by seed; of one seed a number without a range, as records hold no pairs of arms."""
    ours, theirs = _points_by_seed(family), _points_by_seed(base)
    return v.over_runs(v.Value(ours[seed] - theirs[seed]) for seed in ours if seed in theirs)


def _points_by_seed(family: Family) -> dict[int, float]:
    found = {record.seed: main_score(record, record.models[-1].scores) for record in family.records}
    return {seed: 100 * score.value for seed, score in found.items() if score is not None}


def _cost(record: Record, model: ModelResult) -> v.Value | None:
    dense, tenths = baseline(record), 10 * model.sparsity.encoder_linear
    if dense is None or tenths < 10 * _LEAST:
        return None
    before, after = main_score(record, dense.scores), main_score(record, model.scores)
    if before is None or after is None:
        return None
    low, high = after.change_low, after.change_high
    ends = (None, None) if low is None or high is None else (-100 * high / tenths, -100 * low / tenths)
    return v.Value(100 * (before.value - after.value) / tenths, *ends)


def _settings(record: Record) -> Settings:
    """By name; those of a rule under its phase and what it prunes, so that rules are compared with their like."""
    found = {key: str(value) for key, value in flat_values({k: x for k, x in record.recipe.items() if k not in _ASIDE})}
    for phase in record.recipe.get("phases") or ():
        own = {key: value for key, value in phase.items() if key not in ("rules", "name")}
        found |= {f"{phase['name']}.{key}": str(value) for key, value in flat_values(own)}
        for rule in phase.get("rules") or ():
            found |= dict(_rule_settings(phase["name"], rule))
    return found


def _rule_settings(phase: str, rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    structure = _text(rule.get("structure"))
    yield f"{phase}/{structure}", structure
    for key, value in rule.items():
        yield f"{phase}/{structure}/{key}", _text(value)


def _text(value: Any) -> str:
    """A part of a rule in words: `taylor (window 16)`, `70%`, `none`."""
    if isinstance(value, Mapping) and "kind" in value:
        options = ", ".join(f"{key} {_text(one)}" for key, one in value.items() if key != "kind")
        return f"{value['kind']} ({options})" if options else str(value["kind"])
    if isinstance(value, Mapping):
        return ", ".join(f"{one:g} {unit}" for unit, one in value.items() if one is not None)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _apart(base: Settings, other: Settings) -> tuple[str, ...]:
    """What differs, each said once though several rules have it; of a rule that only one has, only that."""
    alone = {key for key in base.keys() ^ other.keys() if key.count("/") == 1}
    said = [f"without {base[key]}" if key in base else f"with {other[key]}" for key in sorted(alone)]
    for key in dict.fromkeys([*base, *other]):
        if base.get(key) != other.get(key) and not any(key.startswith(rule) for rule in alone):
            name = key.rsplit("/", 1)[-1]
            said.append(f"{name}: {base.get(key, 'none')} → {other.get(key, 'none')}")
    return tuple(dict.fromkeys(said))
