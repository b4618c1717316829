"""Runs that are killed at every system call that writes, and whose files are damaged, end with the same bits.

The short form goes on from a few of the states; `make test-faults` takes all but most half-written ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import faults
from fault_injector import available
from forked import Command

# The points of a sweep are runs of `train`.
SHORT = ("compress", "sweep")
SHORT_EVERY, SHORT_DAMAGES = 89, 107
# Which of the states are gone on from; types that differ in their masks alone write the same files.
EVERY = {"compress": 1, "sweep": 2, "fff": 1, "magnitude": 1, "rigl": 2, "soft-movement": 2, "l0": 2}
DAMAGES = 19
LIMIT_S = 1500
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not available(), reason="needs ptrace on Linux and x86-64"),
]


def tried(name: str, folder: Path, *options: str, pictures: str = "off") -> dict:
    done = Command([name, folder / name, *options], faults.main, SPARSEBERT_PICTURES=pictures)
    said = done.communicate(LIMIT_S)[1]
    assert done.returncode == 0, said[-3000:]
    report = json.loads((folder / name / "report.json").read_text())
    assert report["wrong"] == [] and report["calls"] > report["states"] > 100 and report["killed"] > 0
    return report


@pytest.mark.parametrize("name", SHORT)
def test_some_deaths_and_damages(name: str, tmp_path: Path):
    report = tried(name, tmp_path, "--every", str(SHORT_EVERY), "--damages", str(SHORT_DAMAGES))
    assert report["damaged"] > 0


@pytest.mark.faults
@pytest.mark.parametrize("name", EVERY)
def test_all_deaths_and_many_damages(name: str, tmp_path: Path):
    report = tried(name, tmp_path, "--every", str(EVERY[name]), "--damages", str(DAMAGES), pictures="on")
    assert report["killed"] > 50 and report["damaged"] > 3
