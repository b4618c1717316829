"""Energy counters: sums by hand over a made-up tree, and no number where one cannot be known."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from powercap import RANGE_UJ, energy_of, set_energy, zone
from sparsebert import energy
from sparsebert.energy import NOTHING, Counter, Counters, EnergyMeter, Spent, counters, measured_energy, rapl

NOBODY = 65534
CARD = torch.device("cuda", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages with their parts, the platform with both, and the first package once more as its memory sees it."""
    for number in (0, 1):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1_000_000)
        zone(tmp_path, f"intel-rapl:{number}:0", "core", 500_000)
        zone(tmp_path, f"intel-rapl:{number}:1", "dram", 70_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_are_summed_and_nothing_twice(tree: Path):
    with measured_energy(powercap=tree) as meter:
        for number, more in ((0, 3_500_000), (1, 250_000)):
            set_energy(tree / f"intel-rapl:{number}", 1_000_000 + more)
        set_energy(tree / "intel-rapl:2", 50_000_000)
    spent = meter.spent
    assert spent.joules == pytest.approx({"RAPL package-0": 3.5, "RAPL package-1": 0.25})
    assert spent.total == pytest.approx(3.75) and spent.kwh == pytest.approx(3.75 / 3_600_000)
    assert spent.source == "RAPL package-0 + RAPL package-1, all programs" and spent.missing is None
    set_energy(tree / "intel-rapl:0", 99_000_000)
    assert meter.spent == spent


def test_a_counter_that_begins_anew_goes_on(tree: Path):
    package = tree / "intel-rapl:0"
    set_energy(package, RANGE_UJ - 2_000_000)
    with measured_energy(powercap=tree) as meter:
        set_energy(package, 3_000_000)
        meter.look()
        # And once more: what came between two looks is less than a round.
        set_energy(package, RANGE_UJ - 1_000_000)
        meter.look()
        set_energy(package, 0)
    expected = 5.0 + (RANGE_UJ - 4_000_000) / 1e6 + 1.0
    assert meter.spent.joules is not None
    assert meter.spent.joules["RAPL package-0"] == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(0, 99), max_size=20), st.floats(0, 99))
def test_a_counter_of_any_start_gives_what_was_spent(parts: list[float], start: float):
    total = start
    meter = EnergyMeter(Counters((Counter("one", lambda: total % 100, 100.0),)))
    for part in parts:
        total += part
        meter.look()
    assert meter.spent.total == pytest.approx(sum(parts), abs=1e-6)


def test_a_thread_looks_meanwhile(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(energy, "_EVERY_S", 0.001)
    package, rounds = tree / "intel-rapl:0", 3
    with measured_energy(powercap=tree) as meter:
        for turn in range(rounds):
            for part in (1, 2, 3, 4):
                before = meter.spent.joules
                set_energy(package, part * RANGE_UJ // 4 - (part == 4) * 4)
                while meter.spent.joules == before:
                    assert meter.spent.missing is None, turn
            set_energy(package, 0)
    assert meter.spent.joules is not None
    first = RANGE_UJ / 4e6 - 1.0
    assert meter.spent.joules["RAPL package-0"] == pytest.approx(first + (rounds - 0.25) * RANGE_UJ / 1e6, rel=1e-6)


def test_a_counter_that_was_not_looked_at_for_long_is_unknown():
    now = [0.0]
    wraps, counts_on = Counter("wraps", lambda: 5.0, 10.0), Counter("counts on", lambda: 5.0)
    meters = [EnergyMeter(Counters((one,)), lambda: now[0]) for one in (wraps, counts_on)]
    now[0] = 500.0
    found = [meter.look() for meter in meters]
    assert found[0] == Spent(None, "wraps was not read for 500 s and may have begun anew more than once")
    assert found[1] == Spent({"counts on": 0.0})
    now[0] = 501.0
    assert meters[0].look().joules is None


def test_a_counter_without_an_end_that_falls_is_unknown():
    values = iter((7.0, 8.0, 2.0))
    meter = EnergyMeter(Counters((Counter("card", lambda: next(values)),)))
    assert meter.look().total == 1.0
    assert meter.look() == Spent(None, "card was set back")


@pytest.mark.parametrize("broken", ["gone", "words"])
def test_a_package_that_is_lost_leaves_no_number(tree: Path, broken: str):
    file = tree / "intel-rapl:1" / "energy_uj"
    with measured_energy(powercap=tree) as meter:
        set_energy(tree / "intel-rapl:0", 2_000_000)
        assert meter.look().total == 1.0
        file.unlink()
        if broken == "words":
            file.write_text("busy")
    said = {"gone": f"{file} cannot be read (FileNotFoundError)", "words": f"{file} holds no number"}
    assert meter.spent == Spent(None, said[broken]) and meter.spent.source is None and meter.spent.kwh is None


def test_without_counters_there_is_a_reason(tmp_path: Path):
    nowhere = tmp_path / "none"
    with measured_energy(powercap=nowhere) as meter:
        pass
    assert meter.spent == Spent(None, f"no RAPL counters in {nowhere}")
    assert counters(powercap=nowhere).words == f"not measurable here: no RAPL counters in {nowhere}"
    zone(tmp_path, "intel-rapl:0", "psys")
    assert rapl(tmp_path).missing == f"no RAPL counters in {tmp_path}"


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everybody can enter, and a user who is no administrator."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    before = os.geteuid()
    yield home
    os.seteuid(before)
    shutil.rmtree(home)


def test_counters_that_only_root_may_read(as_nobody: Path):
    file = zone(as_nobody, "intel-rapl:0", "package-0") / "energy_uj"
    file.chmod(0o400 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    assert rapl(as_nobody).missing == f"{file} may be read by the administrator only"


def test_parts_add_up_source_by_source():
    one, other = Spent({"a": 1.0, "b": 2.0}), Spent({"b": 3.0, "c": 4.0})
    assert one.plus(other) == Spent({"a": 1.0, "b": 5.0, "c": 4.0}) and NOTHING.plus(one) == one
    assert one.plus(Spent(None, "why")) == Spent(None, "why") == Spent(None, "why").plus(one)
    assert Spent({"a": 3.6e6, "b": 3.6e6}).kwh == 2.0
    twice = Counters((Counter("a", iter((0.0, 1.0)).__next__), Counter("a", iter((0.0, 2.0)).__next__)))
    assert EnergyMeter(twice).look() == Spent({"a": 3.0})


class Driver(types.ModuleType):
    """What of NVIDIA's library is asked, with one card that counts millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = 5_000_000
        self.lost = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-0123-abc":
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return self.millijoules


def with_card(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    card = types.SimpleNamespace(uuid=uuid, name="Example GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)


def test_a_gpu_counts_with_the_packages(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """No GPU is here: the library is a stand-in, so this checks the arithmetic and the names only."""
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    with_card(monkeypatch, "0123-abc")
    with measured_energy(CARD, tree) as meter:
        driver.millijoules += 1_500
        set_energy(tree / "intel-rapl:1", energy_of(tree / "intel-rapl:1") + 2_000_000)
    assert meter.spent.total == pytest.approx(3.5)
    assert meter.spent.source == "NVML Example GPU + RAPL package-0 + RAPL package-1, all programs"
    assert counters(CARD, tree / "none").words == "NVML Example GPU, all programs"
    assert [one.name for one in counters(torch.device("cpu"), tree).found] == ["RAPL package-0", "RAPL package-1"]
    with measured_energy(CARD, tree) as meter:
        driver.lost = True
    assert meter.spent == Spent(None, "NVML: GPU is lost")


def test_a_gpu_that_cannot_be_asked_leaves_no_number(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """The packages alone would be too little. NVIDIA's own library here, which knows no such card."""
    with_card(monkeypatch, "no-such-card")
    found = counters(CARD, tree)
    assert found.found == () and found.missing is not None and found.missing.startswith("NVML: ")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert counters(CARD, tree).missing == "nvidia-ml-py is not installed (pip install 'sparsebert[energy]')"
