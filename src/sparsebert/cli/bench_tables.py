"""What `sparsebert bench` prints: two tables a setting, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sparsebert.cli.output import say, show
from sparsebert.measurement.bench import BenchRow, Match
from sparsebert.records import NOT_HERE, Timing
from sparsebert.reports import values as v


def print_rows(rows: Sequence[BenchRow], said: Sequence[str]) -> None:
    """Print the tables of every setting, then what is `said` of the rows, then what the numbers are."""
    for setting in dict.fromkeys((row.batch, row.length) for row in rows):
        shown = [row for row in rows if (row.batch, row.length) == setting and row.timings]
        if shown:
            for table in tables(shown):
                show(table)
                say("")
    for text in said:
        say(text)
    say("Times: medians of interleaved rounds, with quartiles. Speedups: medians of paired rounds, with 95% intervals.")
    if any(row.real for row in rows):
        say("Texts: each as long as it is, in batches of like length. Times are those of a batch; percentiles of all.")
    if any(row.timings for row in rows):
        say(_where(rows))
    for text in dict.fromkeys(filter(None, map(_energy_words, rows))):
        say(text)
    matches = [match for row in rows if (match := _match(row))]
    if matches:
        what = "text" if any(row.real for row in rows) else "random sequence"
        count = f"{matches[0].sequences} {what}{'s' if matches[0].sequences > 1 else ''}"
        say(f"Outputs: largest difference over the largest output of what they are compared with, on {count}.")


def _where(rows: Sequence[BenchRow]) -> str:
    """Threads and cores, the same for all, and whose process it was."""
    threads, cores = next(row.timings[0].threads for row in rows if row.timings), rows[0].cores
    apart = "each runtime in a process of its own, one at a time; " if len({row.backend for row in rows}) > 1 else ""
    return f"Where: {apart}threads {threads}, on the {cores} cores that a process may use here."


def tables(rows: Sequence[BenchRow]) -> list[Table]:
    """Of one setting: how fast, and what else. Two, so that no number is broken at 80 columns."""
    whole, real = rows[0].timings[0], rows[0].real
    what = f"{whole.length} tokens" if real is None else f"{real.texts} texts of {whole.length} tokens on average"
    title = f"Batch {whole.batch}, {what}, threads {whole.threads}, {_rounds(rows)} rounds"
    times = _table(["Model, ms", "Speedup", "Encoder, ms", "Speedup"], title)
    for row in rows:
        whole, encoder = row.timing("model"), row.timing("encoder")
        times.add_row(Text(row.model), row.backend, _ms(whole), _speedup(whole), _ms(encoder), _speedup(encoder))
    rates = {"Tokens/s": _rate} if real is None else {"Texts/s": _texts_rate, "ms: p50\np95, p99": _percentiles}
    columns: dict[str, Callable[[BenchRow], str]] = {
        **rates,
        "Outputs\ndiffer by": lambda row: _check(_match(row)),
    }
    if any(row.backend_speedup is not None for row in rows):
        columns[f"Over\n{rows[0].backend}"] = _over_first
    if any(row.peak_memory_mb is not None for row in rows):
        columns["Peak\nmemory"] = _memory
    if any(row.timings[0].energy or row.timings[0].energy_missing for row in rows):
        columns["J per 1,000\ntexts"] = _energy
    if any(row.timings[0].energy and row.timings[0].energy.saving for row in rows):
        columns["Energy\nsaving"] = _saving
    rest = _table(columns)
    for row in rows:
        rest.add_row(Text(row.model), _how(row), *(make(row) for make in columns.values()))
    return [times, rest]


def _table(numbers: Iterable[str], title: str | None = None) -> Table:
    """Names of models may be broken where there is no room, and nothing else."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.add_column("Model", overflow="fold")
    table.add_column("Runtime", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rounds(rows: Sequence[BenchRow]) -> str:
    return " and ".join(map(str, dict.fromkeys(row.timings[0].rounds for row in rows)))


def _match(row: BenchRow) -> Match | None:
    return row.against_baseline or row.against_first_backend


def _how(row: BenchRow) -> str:
    return f"{row.backend}\n{row.timings[0].dtype}, {row.timings[0].attention}"


def _rate(row: BenchRow) -> str:
    return f"{row.timings[0].tokens_per_s:,.0f}"


def _texts_rate(row: BenchRow) -> str:
    return v.DASH if row.real is None else f"{row.real.texts_per_s:,.1f}"


def _percentiles(row: BenchRow) -> str:
    real = row.real
    return v.DASH if real is None else f"{v.digits(real.p50_ms)}\n{v.digits(real.p95_ms)}, {v.digits(real.p99_ms)}"


def _ms(timing: Timing | None) -> str:
    if timing is None:
        return v.DASH
    return f"{v.digits(timing.median_ms)}\n{v.digits(timing.q25_ms)}–{v.digits(timing.q75_ms)}"


def _speedup(timing: Timing | None) -> str:
    return v.DASH if timing is None else _ratio(timing.speedup, timing.speedup_low, timing.speedup_high)


def _over_first(row: BenchRow) -> str:
    return _ratio(row.backend_speedup, row.backend_speedup_low, row.backend_speedup_high)


def _ratio(middle: float | None, low: float | None, high: float | None) -> str:
    """With its interval, which few rounds do not have."""
    if middle is None:
        return v.DASH
    return v.times(middle) if low is None or high is None else f"{v.times(middle)}\n{low:.2f}–{high:.2f}"


def _check(match: Match | None) -> str:
    if match is None:
        return v.DASH
    differs = f"{100 * match.relative_difference:.2g}%"
    if match.agreement is None:
        return differs
    return f"{differs}\n{round(match.agreement * match.sequences)} of {match.sequences} agree"


def _memory(row: BenchRow) -> str:
    return v.DASH if row.peak_memory_mb is None else f"{row.peak_memory_mb:,.0f} MB"


def _energy(row: BenchRow) -> str:
    use = row.timings[0].energy
    return v.DASH if use is None else f"{v.digits(use.median_j)}\n{v.digits(use.q25_j)}–{v.digits(use.q75_j)}"


def _saving(row: BenchRow) -> str:
    use = row.timings[0].energy
    return v.DASH if use is None else _ratio(use.saving, use.saving_low, use.saving_high)


def _energy_words(row: BenchRow) -> str | None:
    """What the energies of a row are, or why there are none; None where nobody asked."""
    whole = row.timing("model")
    if whole is None or whole.energy is None:
        return f"Energy: {NOT_HERE}: {whole.energy_missing}." if whole and whole.energy_missing else None
    use = whole.energy
    how = f"medians of {use.rounds} interleaved rounds of {use.round_s:g} s or more, with quartiles"
    return f"Energy: {use.source}; {how}; savings with 95% intervals. What the machine spends when idle is in it."
