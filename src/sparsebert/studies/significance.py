"""Which differences between runs are larger than chance: a paired bootstrap over examples, and t over seeds.

Reads records and the predictions beside them. The metric is computed anew on every resample, so that it may be any;
each resample's difference, a mean over all seeds, is the centre of what that mean varies by with other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.optimize import root_scalar
from scipy.special import stdtr, stdtrit

from sparsebert.errors import UserError, unknown
from sparsebert.records import PREDICTIONS, Record, read_record, record_files
from sparsebert.reports.families import Family, baseline, families
from sparsebert.tasks.bootstrap import LEVEL, resampled_scores
from sparsebert.tasks.metrics import score

TEST = "bootstrap over examples, paired, and t over seeds, two-sided, Holm-corrected"
TEST_OF_ONE_SEED = "paired bootstrap over examples only, as there is one seed, two-sided, Holm-corrected"


@dataclass(frozen=True)
class Contender:
    """One model of one family: logits by seed, all of the same examples.

    `rows` is the SHA-256 of these, none where the record does not say.
    """

    name: str
    metric: str
    split: str
    labels: np.ndarray
    logits: dict[int, np.ndarray]
    rows: str | None = None


@dataclass(frozen=True)
class Difference:
    """`name` against the first contender, in points (0-100) of the mean over seeds.

    low, high: 95 % percentile interval. p: of no difference; p_corrected: after Holm. paired: the seeds are the same
    and were taken together. test: how it was found out; with one seed nothing can be said of others.
    """

    name: str
    against: str
    metric: str
    examples: int
    seeds: int
    paired: bool
    points: float
    low: float
    high: float
    p: float
    p_corrected: float
    resamples: int
    test: str = TEST


@dataclass(frozen=True)
class _Spread:
    """Where a difference lies: about the one of each resample, as far as t with `freedom` over seeds says.

    centres: [resamples], finite. error: standard error over seeds. Computed, not drawn: with as few degrees of freedom
    as two, draws of t would make p values near 0.05 differ by a third from one call to the next.
    """

    centres: np.ndarray
    error: float
    freedom: int

    @property
    def p(self) -> float:
        """Of no difference: twice the smaller part on either side of zero, what is at zero on both; never 0."""
        below, above = self.below(0.0), _Spread(-self.centres, self.error, self.freedom).below(0.0)
        count = len(self.centres)
        return min(1.0, 2 * (1 + count * min(below, above)) / (1 + count))

    def below(self, value: float) -> float:
        """The part at or below `value`; 0 without resamples."""
        if not len(self.centres):
            return 0.0
        if self.error == 0:
            return float(np.mean(self.centres <= value))
        return float(np.mean(stdtr(self.freedom, (value - self.centres) / self.error)))

    def quantile(self, level: float) -> float:
        """What lies above a part of `level`; nan without resamples."""
        if not len(self.centres):
            return math.nan
        if self.error == 0:
            return float(np.quantile(self.centres, level))
        # Each centre's own quantile is this far from it, so the whole's lies between the least and the greatest.
        away = self.error * float(stdtrit(self.freedom, level))
        low, high = float(self.centres.min()) + away, float(self.centres.max()) + away
        bracket = (low - self.error, high + self.error)
        return float(root_scalar(lambda value: self.below(value) - level, bracket=bracket).root)


def contenders(
    paths: Sequence[Path], model: str | None = None, remark: Callable[[str], None] = lambda text: None
) -> list[Contender]:
    """The model named `model` of every family in the runs found under `paths`; none = all of a single family.

    Of several families, none = the last model, or of fast feedforward layers the first that is not the dense one.

    `remark` is told of failed runs, which are left out. Raises UserError where no run is left, for a family without
    that model, for a seed that is there twice, and where predictions are missing.
    """
    found = [one for path in paths for one in _finished(path, remark)]
    places = {id(record): folder for folder, record in found}
    groups = families([record for _, record in found])
    if not groups:
        raise UserError("There is no finished run", got=", ".join(map(str, paths)))
    several = len(groups) > 1
    return [_contender(family, name, places, several) for family in groups for name in _names(family, model, several)]


def _names(family: Family, model: str | None, several: bool) -> Sequence[str]:
    if model is None:
        return (_headline(family),) if several else family.names
    if model not in family.names:
        raise unknown("model", model, family.names)
    return (model,)


def _headline(family: Family) -> str:
    """The model that stands for a family where none is named."""
    dense = baseline(family.first)
    made = [name for name in family.names if dense is None or name != dense.name]
    # Other kinds end with the model that was asked for most; here the controls come last.
    return made[0] if family.first.kind == "fff" and made else family.names[-1]


def differences(
    rivals: Sequence[Contender], resamples: int, seed: int, progress: Callable[[str], None] = lambda text: None
) -> list[Difference]:
    """Every contender against the first.

    Raises UserError if they are not of the same task and examples, and for so few resamples that not even the largest
    difference could be told from chance among so many models.
    """
    if len(rivals) < 2:
        raise UserError("There is only one model to compare", fix="give another run")
    fewest = math.ceil(2 * (len(rivals) - 1) / LEVEL)
    if resamples < fewest:
        raise UserError(
            f"Too few resamples to compare {len(rivals)} models", got=resamples, allowed=f"{fewest:,} and more"
        )
    first, *others = rivals
    for rival in others:
        _check_comparable(first, rival)
    drawn = []
    for rival in rivals:
        progress(f"Resampling {rival.name}")
        drawn.append(_resampled(rival, resamples, seed))
    return holm([_difference(first, one, own - drawn[0]) for one, own in zip(others, drawn[1:], strict=True)])


def holm(raw: Sequence[Difference]) -> list[Difference]:
    """The differences with their p values after Holm's correction."""
    corrected = holm_corrected([one.p for one in raw])
    return [replace(one, p_corrected=value) for one, value in zip(raw, corrected, strict=True)]


def holm_corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values (Holm 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def _finished(path: Path, remark: Callable[[str], None]) -> list[tuple[Path, Record]]:
    found = [(file.parent, read_record(file)) for file in record_files(path)]
    for folder, record in found:
        if record.status == "failed":
            remark(f"{folder} failed and is left out: {record.message}")
    return [(folder, record) for folder, record in found if record.status == "finished"]


def _contender(family: Family, name: str, places: dict[int, Path], several: bool) -> Contender:
    runs = family.runs(name)
    logits: dict[int, np.ndarray] = {}
    labels, metric, split = np.empty(0), str(family.first.main_metric), ""
    for record, model in runs:
        tensors = _predictions(places[id(record)])
        split = next((one.split for one in model.scores if one.metric == metric), "")
        if not split:
            raise UserError(f"A model has no {metric}, as where all of its outputs are equal", got=places[id(record)])
        if f"{split}/labels" not in tensors:
            fix = "split the model, and compare what each of its heads scores"
            raise UserError(f"The {metric} score is of several tasks, and is not compared", got=family.label, fix=fix)
        if len(labels) and not np.array_equal(labels, tensors[f"{split}/labels"]):
            raise UserError("The seeds of a recipe were scored on different examples", got=family.label)
        if record.seed in logits:
            raise UserError("Two runs of one recipe have the same seed", got=places[id(record)], fix="give one of them")
        labels = tensors[f"{split}/labels"]
        logits[record.seed] = tensors[f"{name}/{split}/logits"]
    title = f"{family.label}: {name}" if several else name
    return Contender(title, metric, split, labels, logits, _rows(family.first, split))


def _rows(record: Record, split: str) -> str | None:
    return record.inputs.data[split].sha256 if record.inputs and split in record.inputs.data else None


def _predictions(folder: Path) -> dict[str, np.ndarray]:
    file = folder / PREDICTIONS
    if not file.is_file():
        raise UserError("The run has no predictions", got=file, fix="make the run again with this version")
    return load_file(file)


def _check_comparable(first: Contender, rival: Contender) -> None:
    if (first.metric, first.split) != (rival.metric, rival.split) or not np.array_equal(first.labels, rival.labels):
        raise UserError(
            "Only models scored on the same examples can be compared",
            got=f"{first.metric} on {len(first.labels)} rows, {rival.metric} on {len(rival.labels)} rows",
        )
    if first.rows and rival.rows and first.rows != rival.rows:
        raise UserError(
            "Only models scored on the same examples can be compared",
            got=f"{len(first.labels)} rows with the same labels, but other texts, for {first.name} and {rival.name}",
        )


def _resampled(one: Contender, resamples: int, seed: int) -> np.ndarray:
    """Its mean score over its seeds on each resample of the rows [resamples], nan where one has no value.

    The rows drawn are the same for all contenders.
    """
    runs = [resampled_scores(one.metric, logits, one.labels, resamples, seed) for logits in one.logits.values()]
    return np.mean(runs, axis=0)


def _difference(first: Contender, rival: Contender, apart: np.ndarray) -> Difference:
    """`apart` is the rival's score less the first one's on each resample."""
    paired, rows = first.logits.keys() == rival.logits.keys(), len(first.labels)
    ours, theirs = (
        {seed: score([one.metric], logits, one.labels).get(one.metric, np.nan) for seed, logits in one.logits.items()}
        for one in (rival, first)
    )
    spread = _Spread(apart[np.isfinite(apart)], *_seed_error(theirs, ours, paired))
    p = spread.p
    observed = np.mean(list(ours.values())) - np.mean(list(theirs.values()))
    return Difference(
        name=rival.name,
        against=first.name,
        metric=first.metric,
        examples=rows,
        seeds=len(rival.logits),
        paired=paired,
        points=100 * float(observed),
        low=100 * spread.quantile(0.025),
        high=100 * spread.quantile(0.975),
        p=p,
        p_corrected=p,
        resamples=len(spread.centres),
        test=TEST if spread.freedom else TEST_OF_ONE_SEED,
    )


def _seed_error(first: Mapping[int, float], rival: Mapping[int, float], paired: bool) -> tuple[float, int]:
    """Standard error over seeds of the difference of means, and its degrees of freedom; (0, 0) where none can be told.

    To draw few seeds again and again would make it too small: of three by a half, and the mean's tails are those of t.
    """
    if paired:
        apart = [rival[seed] - first[seed] for seed in rival]
        return (float(np.std(apart, ddof=1)) / len(apart) ** 0.5, len(apart) - 1) if len(apart) > 1 else (0.0, 0)
    sides = [np.array(list(side.values())) for side in (first, rival)]
    freedom = sum(len(side) - 1 for side in sides)
    if freedom == 0:
        return 0.0, 0
    variance = sum(float(((side - side.mean()) ** 2).sum()) for side in sides) / freedom
    return (variance * sum(1 / len(side) for side in sides)) ** 0.5, freedom
