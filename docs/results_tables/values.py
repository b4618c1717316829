"""Records and rows as they lie in results/STUDY/records, and how their numbers are written in a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsebert.records import ModelResult, Record, Score, read_record, record_files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
Row = dict[str, Any]
Times = Mapping[str, float]


def records(study: str, *folders: str) -> dict[str, Record]:
    """The records of a study, or of one of its folders, by the name of the run."""
    files = record_files(RESULTS.joinpath(study, "records", *folders))
    return {file.parent.name: read_record(file) for file in files}


def rows(study: str, name: str) -> list[Row]:
    """What a benchmark wrote."""
    return json.loads((RESULTS / study / "records" / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def times(found: Sequence[Row], variant: str, baseline: str | None, **case: object) -> Times:
    """The times of the one row that is of this variant, baseline and case. Raises ValueError if it is not one."""
    (row,) = [
        row
        for row in found
        if (row["variant"], row["baseline"]) == (variant, baseline) and case.items() <= row["case"].items()
    ]
    return row["times"]


def score(scores: Sequence[Score], metric: str) -> float:
    """A metric in percent."""
    return 100 * next(one.value for one in scores if one.metric == metric)


def main_score(record: Record, model: ModelResult) -> float:
    """The task's main metric in percent."""
    return score(model.scores, str(record.main_metric))


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (minimum–maximum)."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}–{high})"


def signed(value: float) -> str:
    """With one digit, and a sign that is not a hyphen."""
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")


def ratio(found: Times) -> str:
    """A speedup and its quartiles, as far as they are known."""
    middle = _three(found["speedup"])
    if "speedup_q25" not in found:
        return middle
    return f"{middle} ({_three(found['speedup_q25'])}–{_three(found['speedup_q75'])})"


def factor(found: Times) -> str:
    """A speedup alone."""
    return _three(found["speedup"])


def us(found: Times) -> str:
    """Microseconds."""
    value = 1000 * found["median_ms"]
    return f"{value:,.1f} us" if value < 100 else f"{value:,.0f} us"


def ms(found: Times) -> str:
    """Milliseconds."""
    return f"{found['median_ms']:,.0f}" if found["median_ms"] >= 100 else f"{found['median_ms']:.1f}"


def percent(fraction: float) -> str:
    """Without digits."""
    return f"{100 * fraction:.0f} %"


def _three(value: float) -> str:
    """With three digits, two of them after the point below ten."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
