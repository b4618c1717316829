"""The energy of 1,000 texts: joules by hand of variants that take a known number of them, and what tables say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sparsebert
from powercap import RANGE_UJ, energy_of, set_energy, zone
from sparsebert import energy
from sparsebert.cli.bench_tables import print_rows, tables
from sparsebert.measurement import energy as measurement
from sparsebert.measurement.bench import BenchRow, bench
from sparsebert.measurement.energy import energy_uses, repeated
from sparsebert.measurement.setting import Setting
from sparsebert.records import EnergyUse
from sparsebert.timing import Conditions, timing
from tiny import tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

CPU = torch.device("cpu")
SOURCE = "RAPL package-0, all programs"
QUICK = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only package, close to where its counter begins anew; rounds are of a few milliseconds."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setitem(energy_uses.__kwdefaults__, "round_s", 0.003)
    return zone(tmp_path / "powercap", "intel-rapl:0", "package-0", RANGE_UJ - 20_000_000)


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine without counters, and what is said of it."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    return f"not measurable here: no RAPL counters in {tmp_path / 'none'}"


def spend(package: Path, joules: float) -> None:
    set_energy(package, round(energy_of(package) + joules * 1e6) % RANGE_UJ)


def taking(package: Path, joules: float) -> Callable[[float], int]:
    return repeating(lambda: spend(package, joules))


def repeating(call: Callable[[], object]) -> Callable[[float], int]:
    return partial(repeated, call)


def test_joules_of_a_thousand_texts_by_hand(package: Path):
    done: list[str] = []

    def noted(name: str, joules: float) -> Callable[[float], int]:
        def call() -> None:
            if done[-1:] != [name]:
                done.append(name)
            spend(package, joules)

        return repeating(call)

    calls = {"dense": noted("dense", 2.0), "small": noted("small", 0.5)}
    found = energy_uses(calls, 4, CPU, lambda key: "dense", rounds=6)
    assert found.missing is None
    dense, small = found.found["dense"], found.found["small"]
    # 2 J for 4 texts are 500 J for 1,000.
    assert [dense.median_j, dense.q25_j, dense.q75_j] == pytest.approx([500.0] * 3)
    assert small.median_j == pytest.approx(125.0) and small.saving == pytest.approx(4.0)
    assert (small.saving_low, small.saving_high) == pytest.approx((4.0, 4.0))
    assert (dense.saving, dense.source, dense.rounds, dense.round_s) == (None, SOURCE, 6, 0.003)
    # Rounds are interleaved and change their order, so the last of one may be the first of the next.
    assert done == [*["dense", "small"] * 4, "dense"]


def test_five_rounds_have_no_interval(package: Path):
    calls = {"dense": taking(package, 1), "small": taking(package, 1)}
    small = energy_uses(calls, 1, CPU, lambda key: "dense", rounds=5).found["small"]
    assert small.saving == pytest.approx(1) and small.saving_low is None


def test_nothing_runs_where_nothing_can_be_measured(nothing: str):
    def never() -> None:
        raise AssertionError("it ran")

    found = energy_uses({"one": repeating(never)}, 1, CPU, lambda key: key)
    assert found.found == {} and f"not measurable here: {found.missing}" == nothing


def test_a_counter_that_fails_or_stands_still_gives_no_number(package: Path):
    assert energy_uses({"one": repeating(lambda: None)}, 1, CPU, lambda key: key).missing == "the counters stood still"
    file = package / "energy_uj"
    lost = energy_uses({"one": repeating(file.unlink)}, 1, CPU, lambda key: key, round_s=0)
    assert lost.found == {} and lost.missing == f"{file} cannot be read (FileNotFoundError)"


def test_a_benchmark_has_the_energy_of_whole_models(package: Path):
    dense, small = tiny_model("bert"), tiny_model("bert")
    for model, joules in ((dense, 0.4), (small, 0.1)):
        model.register_forward_hook(lambda *_, joules=joules: spend(package, joules))
    told: list[str] = []
    setting = Setting(batch=2, length=8)
    rows = bench({"dense": dense, "small": small}, [setting], energy=True, progress=told.append, **QUICK)
    found = {row.model: row.timings for row in rows}
    assert [timing.scope for timing in found["dense"]] == ["model", "encoder"]
    uses = {name: timings[0].energy for name, timings in found.items()}
    assert uses["dense"].median_j == pytest.approx(200.0) and uses["small"].median_j == pytest.approx(50.0)
    assert uses["dense"].saving is None and uses["small"].saving == pytest.approx(4.0)
    assert found["small"][1].energy is None and told[-1] == "batch 2, length 8: energy of 2 variants"
    plain = bench({"dense": dense}, [setting], **QUICK)[0].timings[0]
    assert (plain.energy, plain.energy_missing) == (None, None)


def shown(rows: list[BenchRow]) -> str:
    stream = io.StringIO()
    for table in tables(rows):
        Console(file=stream, width=80).print(table)
    return stream.getvalue()


def row_of(name: str, **update: object) -> BenchRow:
    whole = timing([1400.0] * 15, [17430.0] * 15, Conditions("model", "sparse-bf16", "bfloat16", "sdpa", 32, 512, 2))
    row = BenchRow(model=name, backend="sparse-bf16", batch=32, length=512, cores=2)
    return row.model_copy(update={"timings": (whole.model_copy(update=update),)})


def test_energy_fits_in_the_table_and_is_explained(capsys: pytest.CaptureFixture[str]):
    use = EnergyUse(source=SOURCE, rounds=7, round_s=1, median_j=1234.5, q25_j=1200, q75_j=1300)
    saving = {"saving": 2.345, "saving_low": 2.3, "saving_high": 2.4}
    rows = [row_of("dense", energy=use), row_of("magnitude-0.95-sparsity", energy=use.model_copy(update=saving))]
    drawn = shown(rows)
    for text in ("J per 1,000", "1,234", "1,200–1,300", "2.35×", "2.30–2.40"):
        assert text in drawn, drawn
    assert max(map(len, drawn.splitlines())) <= 80 and "…" not in drawn
    print_rows(rows, [])
    said = capsys.readouterr().out
    assert f"Energy: {SOURCE}; medians of 7 interleaved rounds of 1 s or more" in said and said.count("Energy:") == 1


def test_the_command_says_why_there_is_no_energy(nothing: str, tmp_path: Path):
    model = save_tiny(tmp_path / "model")
    command = ("bench", model, "--length", 8, "--rounds", 1, "--energy")
    refused = run_cli(*command)
    assert_refused(refused, ["measure.rounds"])
    done = run_cli(*command[:-3], "--rounds", 3, "--energy")
    assert done.exit_code == 0, done.output
    assert f"Energy: {nothing}." in done.stdout and "J per 1,000" in done.stdout
    plain = json.loads(run_cli(*command[:-3], "--rounds", 3, "--energy", "--json").stdout)
    [row] = plain["rows"]
    assert (
        "energy" not in row["timings"][0] and f"not measurable here: {row['timings'][0]['energy_missing']}" == nothing
    )
    assert "Energy" not in run_cli(*command[:-3], "--rounds", 3).stdout


def test_the_package_measures_as_the_command_does(package: Path):
    model = tiny_model("bert")
    model.register_forward_hook(lambda *_: spend(package, 0.1))
    found = sparsebert.bench({"one": model}, length=8, rounds=3, energy=True, progress=False)
    use = found.rows[0].timings[0].energy
    assert use is not None and use.median_j == pytest.approx(100.0) and use.rounds == measurement.ROUNDS
