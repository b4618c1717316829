"""What a benchmark says in words, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from sparsebert.measurement.bench import BenchRow, runtime_verdict, verdict


def verdicts(rows: Sequence[BenchRow]) -> list[str]:
    """In words: how each model does against the first one, and each runtime against the first."""
    baseline, first = rows[0].model, rows[0].backend
    said: list[str] = []
    for row in rows:
        headline = row.timing("encoder") or row.timing("model")
        if row.unavailable:
            said.append(f"{row.model} on {row.backend} was not measured: {row.unavailable}")
        elif row.model != baseline and headline:
            said.append(verdict(row.model, baseline, headline))
        over = runtime_verdict(row, first)
        said += [over] if over else []
    return said
