"""Runs of every type that are killed and damaged in every way there is: `python tests/faults.py TYPE FOLDER`.

Writes `report.json` there: how many system calls, states and damages there were, and what did not end as it should.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import torch
from matplotlib.figure import Figure

import sparsebert.runs.sweep  # noqa: F401
from fault_injector import content, in_child, representatives, trace
from sparsebert.cli.application import app
from sparsebert.records import FILE_NAME, PREDICTIONS
from test_stages import DAMAGES
from tiny_run import save_tiny, write_task

TRAINING = {"max_steps": 4, "save_steps": 2, "batch_size": 16, "learning_rate": 1e-3}
EVERY = {"every": {"steps": 1}, "sparsity": 0.5, "scope": ["ffn"]}
RULES: dict[str, dict[str, Any]] = {
    "magnitude": EVERY,
    "rigl": EVERY | {"schedule": "constant", "update": {"kind": "swap"}, "stop": {"percent": 100}},
    "soft-movement": EVERY | {"gate": "soft_movement", "penalty": "lagrangian"},
    "l0": EVERY | {"gate": "hard_concrete", "penalty": "lagrangian"},
}
COMPRESS = ("compress", "--sparsity", "0.3", "--sparsity", "0.6", "--set", "search.examples=16")
COMPRESS_SEARCH = ("--set", "search.score_examples=8", "--set", "search.candidates=2")
TREES = ("fff", "--depth", "1", "--no-controls", "--set", "trees.steps=4", "--set", "trees.examples=16")
# Of no meaning for what a run made.
SHARED = "Made by another run of the sweep"
PASSING = ("seconds", "created", "command", "timings", "environment")


@dataclass
class Report:
    """What was tried with one type of run; `wrong` says what did not end as it should."""

    calls: int = 0
    states: int = 0
    killed: int = 0
    damaged: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """A type of run in a folder of its own: `command` gives the words of the command line for an output folder."""

    home: Path
    command: Callable[[Path], Sequence[str]]

    def call(self, out: Path) -> int:
        try:
            app([*self.command(out)], standalone_mode=True)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


def case(name: str, home: Path) -> Case:
    """Make the model and the data of a type of run."""
    save_tiny(home / "model", "base")
    write_task(home / "data", 32, 16)
    common = ("--task", "mine", "--data", str(home / "data"), "--set", "measure.timed=false")
    short = [
        text
        for part in ("dense", "finetune")
        for key, value in TRAINING.items()
        for text in ("--set", f"{part}.{key}={value}")
    ]
    model = str(home / "model")
    if name == "compress":
        return Case(home, lambda out: (*COMPRESS, *COMPRESS_SEARCH, model, *common, *short, "-o", str(out)))
    if name == "fff":
        return Case(home, lambda out: (*TREES, model, *common, *short, "-o", str(out)))
    sweeps = name == "sweep"
    recipe = home / "recipe.yaml"
    recipe.write_text(json.dumps(_phases("magnitude" if sweeps else name, sweeps)), encoding="utf-8")
    if sweeps:
        given = (str(recipe), "--model", model, *common, *short[:8], "--grid", "sparsity=0.3,0.6")
        return Case(home, lambda out: ("sweep", *given, "-o", str(out)))
    return Case(home, lambda out: ("train", model, "--recipe", str(recipe), *common, *short[:8], "-o", str(out)))


def _phases(name: str, sweeps: bool) -> dict[str, Any]:
    rule = {key: value for key, value in RULES[name].items() if not (sweeps and key == "sparsity")}
    phases = [{"name": "one", "training": TRAINING, "rules": [rule]}]
    if sweeps:
        phases[0]["teacher"] = "dense"
    else:
        phases.append({"name": "two", "training": TRAINING, "rules": []})
    return {"schema": 1, "sparsity": 0.5, "phases": phases}


def outcome(out: Path) -> dict[str, Any]:
    """What a run ended with: bytes of models and predictions, and records without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == FILE_NAME:
            found[name] = _lasting(json.loads(path.read_bytes()))
            # Which run of a sweep made what they share depends on where it was killed; what was made does not.
            found[name]["notes"] = [note for note in found[name]["notes"] if not note.startswith(SHARED)]
        elif (
            path.is_file() and (path.suffix == ".safetensors" or path.name == PREDICTIONS) and "work" not in path.parts
        ):
            found[name] = path.read_bytes()
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in PASSING}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _differing(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    return sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))


def _go_on(one: Case, out: Path, expected: dict[str, Any], log: Path) -> str | None:
    """What is wrong with how a run ends that goes on in `out`; None if nothing."""
    code = in_child(lambda: one.call(out), log)
    if code != 0:
        return f"exit code {code}: {log.read_text().strip().splitlines()[-1:]}"
    differing = _differing(expected, outcome(out))
    return f"other results: {', '.join(differing)}" if differing else None


def killed(one: Case, report: Report, every: int, all_states: bool) -> Path:
    """Kill at every writing system call, of which each `every`th state is gone on from. Gives the undisturbed run.

    Of the many states in which one file is half-written three are taken, unless `all_states`.
    """
    whole, traced = one.home / "whole", one.home / "traced"
    log = one.home / "log"
    assert in_child(lambda: one.call(whole), log) == 0, log.read_text()
    expected = outcome(whole)
    found = trace(lambda: one.call(traced), traced, one.home / "states")
    assert found.code == 0 and not _differing(expected, outcome(traced)), "two undisturbed runs differ"
    report.calls, report.states = found.calls, len(found.states)
    states = found.states if all_states else representatives(found.states)
    for state in states[::every]:
        report.killed += 1
        if wrong := _go_on(one, state.folder, expected, log):
            report.wrong.append(f"killed before call {state.number} of {found.calls}: {wrong}")
        else:
            shutil.rmtree(state.folder)
    return whole


def damaged(one: Case, whole: Path, report: Report, every: int) -> None:
    """Damage every file of a finished run, and of one that has lost its record, in every way."""
    expected, log, place = outcome(whole), one.home / "log", one.home / "damaged"
    tries = [(file, how, last) for last in (False, True) for file in _files(whole) for how in DAMAGES]
    for file, how, unfinished in tries[::every]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        for record in place.rglob(FILE_NAME) if unfinished else ():
            record.unlink()
        if not (place / file).exists() or not (place / file).stat().st_size:
            continue
        DAMAGES[how](place / file)
        report.damaged += 1
        before = content(place)
        code = in_child(lambda: one.call(place), log)
        said = log.read_text(errors="replace").strip().splitlines()
        if (
            code == 2
            and said
            and said[-1].startswith("error: ")
            and (content(place) == before or "points failed" in said[-1])
        ):
            report.refused += 1
        elif code != 0:
            report.wrong.append(f"{file}, {how}: exit code {code}: {said[-1:]}")
        elif differing := _differing(expected, outcome(place)):
            report.wrong.append(
                f"{file}, {how}{', no record' if unfinished else ''}: other results: {', '.join(differing)}"
            )


def _files(whole: Path) -> Iterator[Path]:
    for path in sorted(whole.rglob("*")):
        if path.is_file() and "plots" not in path.parts:
            yield path.relative_to(whole)


def main() -> None:
    """Try one type of run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("type", choices=[*RULES, "compress", "fff", "sweep"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="go on from each Nth state only")
    parser.add_argument("--all-states", action="store_true", help="also every half-written state of a file")
    parser.add_argument("--damages", type=int, default=1, help="try each Nth damage only; 0 = none")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    # Every child would look through all that was imported each time it collects.
    gc.freeze()
    # Pictures take a third of the time, and are written like all other files.
    Figure.savefig = lambda self, place, **_: place.write(b"a picture")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    report, one = Report(), case(given.type, given.folder)
    whole = killed(one, report, given.every, given.all_states)
    if given.damages:
        damaged(one, whole, report, given.damages)
    (given.folder / "report.json").write_text(json.dumps(asdict(report), indent=1))


if __name__ == "__main__":
    main()
