"""A made-up tree of the kernel's energy counters, as Linux lays it out, for machines that have none."""

from __future__ import annotations

from pathlib import Path

RANGE_UJ = 262_143_328_850
"""What a package counts up to on most of Intel's processors."""


def zone(home: Path, name: str, says: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """A domain such as `intel-rapl:0` that calls itself `package-0`."""
    folder = home / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{says}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    set_energy(folder, energy_uj)
    return folder


def set_energy(zone: Path, energy_uj: int) -> None:
    """Let a counter stand at a number, in one step for whoever reads it meanwhile."""
    (zone / "new").write_text(f"{energy_uj}\n")
    (zone / "new").replace(zone / "energy_uj")


def energy_of(zone: Path) -> int:
    """Where a counter stands."""
    return int((zone / "energy_uj").read_text())
