"""Runs that are killed at every system call that writes, and whose files are damaged, end with the same bits.

The short form goes on from some of the states and damages; `make test-faults` takes all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fault_injector import available

SHORT = {"compress": 29, "magnitude": 29, "sweep": 29}
TYPES = ("compress", "fff", "magnitude", "rigl", "soft-movement", "l0", "sweep")
LIMIT_S = 1500
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not available(), reason="needs ptrace on Linux and x86-64"),
]


def tried(name: str, folder: Path, *options: str) -> dict:
    script = Path(__file__).with_name("faults.py")
    command = [sys.executable, str(script), name, str(folder / name), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((folder / name / "report.json").read_text())
    assert report["wrong"] == [] and report["calls"] > report["states"] > 100 and report["killed"] > 0
    return report


@pytest.mark.parametrize("name", SHORT)
def test_some_deaths_and_damages(name: str, tmp_path: Path):
    report = tried(name, tmp_path, "--every", str(SHORT[name]), "--damages", str(4 * SHORT[name] + 1))
    assert report["damaged"] > 0


@pytest.mark.faults
@pytest.mark.parametrize("name", TYPES)
def test_all_deaths_and_damages(name: str, tmp_path: Path):
    report = tried(name, tmp_path)
    assert report["damaged"] > 100
