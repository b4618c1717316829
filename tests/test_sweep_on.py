"""Sweeps on several workers end as those on one do; what is killed begins again, what fails stops nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from forked import LIMIT_S, Command, finished, main_of_copies
from sparsebert.records import FILE_NAME, Record, read_record
from sparsebert.runs.sweep import points_of
from test_resume import wait_and_stop
from tiny_run import assert_refused, run_cli, save_tiny, write_task

pytestmark = pytest.mark.process
COMMAND = str(Path(sysconfig.get_path("scripts")) / "sparsebert")
TEACHER = ("--set", "phases.0.teacher=dense", "--set", "dense.max_steps=6")


def quick_recipe(file: Path, steps: int = 4) -> Path:
    training = {"max_steps": steps, "save_steps": 10, "batch_size": 16, "learning_rate": 1e-3}
    phase = {"name": "prune", "training": training, "rules": [{"every": {"steps": 1}}]}
    values = {"schema": 1, "task": "mine", "sparsity": 0.5, "phases": [phase], "measure": {"timed": False}}
    file.write_text(json.dumps(values), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    save_tiny(folder / "model", "base")
    write_task(folder / "data")
    quick_recipe(folder / "one.yaml")
    quick_recipe(folder / "two.yaml", steps=3)
    quick_recipe(folder / "long.yaml", steps=300)
    return folder


def words(home: Path, out: Path, *more: object, recipes: tuple[str, ...] = ("one",)) -> list[str]:
    files = [home / f"{name}.yaml" for name in recipes]
    given = ("sweep", *files, "--model", home / "model", "--data", home / "data", "-o", out, *more)
    return [str(word) for word in given]


def real(line: list[str]) -> subprocess.Popen[str]:
    """The executable, which imports everything anew."""
    return subprocess.Popen([COMMAND, *line], stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)


def heed_ctrl_c() -> None:
    """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def records(out: Path) -> dict[str, Record]:
    return {file.parent.name: read_record(file.parent) for file in sorted(out.glob(f"*/{FILE_NAME}"))}


def test_two_workers_give_the_records_of_one(home: Path, tmp_path: Path) -> None:
    grid = ("--grid", "sparsity=0.3,0.6", *TEACHER)
    found = {}
    for on in ("local", "local:2"):
        said = finished(words(home, tmp_path / on[5:], *grid, "--on", on, "--json", recipes=("one", "two")))
        assert said.returncode == 0, said.stderr
        found[on] = records(tmp_path / on[5:])
        assert len(json.loads(said.stdout)["models"]) == 8
    names = [f"{recipe}_sparsity={value}_seed=0" for recipe in ("one", "two") for value in (0.3, 0.6)]
    assert sorted(found["local"]) == sorted(found["local:2"]) == sorted(names)
    for name, alone in found["local"].items():
        beside = found["local:2"][name]
        assert beside.recipe_hash == alone.recipe_hash and beside.status == "finished"
        for one, other in zip(alone.models, beside.models, strict=True):
            assert one.scores == other.scores and one.sparsity == other.sparsity
    # All four have one dense model, which is trained once although two begin at the same time.
    for on, all_of_them in found.items():
        given = [one for one in all_of_them.values() if any("Made by another run" in note for note in one.notes)]
        assert len(given) == 3, on
    assert not (tmp_path / ":2" / "cache").exists()
    again = finished(words(home, tmp_path / ":2", *grid, "--on", "local:2", recipes=("one", "two")))
    assert again.returncode == 0 and again.stderr.count("(done)") == 4


def test_a_point_that_fails_is_marked_and_the_others_go_on(home: Path, tmp_path: Path) -> None:
    grid = ("--grid", "phases.0.training.learning_rate=1e+12,0.001")
    said = finished(words(home, tmp_path / "out", *grid, "--on", "local:1"))
    assert said.returncode == 2 and "1 of 2 points failed" in said.stderr
    assert said.stderr.count("learning-rate=1e+12_seed=0 failed: The training loss became") == 1
    found = records(tmp_path / "out")
    assert {name: one.status for name, one in found.items()} == {
        "learning-rate=1e+12_seed=0": "failed",
        "learning-rate=0.001_seed=0": "finished",
    }


def workers_of(process: subprocess.Popen[str] | Command) -> list[int]:
    """Processes that the command has started, but for the one that looks after multiprocessing's own files."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == process.pid and "resource_tracker" not in command:
            found.append(int(folder.name))
    return found


def test_a_worker_that_is_killed_goes_on_from_its_checkpoint(home: Path, tmp_path: Path) -> None:
    """With --restart too, which is about what lay there before the command."""
    out = tmp_path / "out"
    process = Command(words(home, out, "--restart", "--on", "local:1", recipes=("long",)), main_of_copies)
    wait_for(lambda: list(out.rglob("training/checkpoint-*")), process)
    begun = {file: file.stat().st_ino for file in out.glob("*/recipe.json")}
    os.kill(workers_of(process)[0], signal.SIGKILL)
    said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, said
    assert said.count("A worker died (SIGKILL") == 1 and "1 of at most 2 times" in said
    assert {name: one.status for name, one in records(out).items()} == {"seed=0": "finished"}
    assert len(begun) == 1 and {file: file.stat().st_ino for file in begun} == begun


def wait_for(moment: object, process: subprocess.Popen[str] | Command) -> None:
    end = time.monotonic() + LIMIT_S
    while not moment():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopping_the_command_stops_its_workers_and_leaves_what_is_finished(
    how: signal.Signals, code: int, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = words(home, out, "--on", "local:2", recipes=("one", "long"))
    # Ctrl-C finds workers that are new interpreters, as they are for a user.
    process = real(command) if how == signal.SIGINT else Command(command, main_of_copies)
    wait_for((out / "one_seed=0" / "finished.json").is_file, process)
    wait_for(lambda: list((out / "long_seed=0").rglob("training/checkpoint-*")), process)
    workers = workers_of(process)
    assert len(workers) == 2
    ended, said = wait_and_stop(process, lambda: True, how)
    assert ended == code
    if how == signal.SIGINT:
        assert said.strip().splitlines()[-1] == "interrupted; the same command goes on from here"
        assert "Traceback" not in said
    end = time.monotonic() + LIMIT_S
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    before = (out / "one_seed=0" / FILE_NAME).stat().st_mtime_ns
    assert list(records(out)) == ["one_seed=0"]
    if how == signal.SIGINT:
        # Elsewhere than before, from the checkpoint that is there.
        again = run_cli(*words(home, out, recipes=("one", "long")))
        assert again.exit_code == 0 and "one_seed=0 (done)" in again.stderr, again.output
        assert sorted(records(out)) == ["long_seed=0", "one_seed=0"]
        assert (out / "one_seed=0" / FILE_NAME).stat().st_mtime_ns == before


def test_points_of_several_recipes_have_their_names_in_front(home: Path) -> None:
    files = [home / "one.yaml", home / "two.yaml"]
    assert [point.name for point in points_of(files, [], [], (0, 1))] == [
        "one_seed=0",
        "two_seed=0",
        "one_seed=1",
        "two_seed=1",
    ]
    # So that a folder of before goes on.
    assert [point.name for point in points_of(files[:1], [], [], (0,))] == ["seed=0"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one", "one"], ["Two points of the sweep would share a folder", "one_seed=0"]),
        (["one", "nothing"], ["recipe file does not exist", "nothing.yaml"]),
        (["one", "two", "--on", "local:0"], ["number of workers is a whole one"]),
        (["one", "--on", "cloud"], ["Jobs cannot run there; got cloud; allowed: local, local:N, ray"]),
        (["one", "--on", "ray://127.0.0.1:9"], ["No Ray cluster answers at 127.0.0.1:9"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], expected: list[str], home: Path, tmp_path: Path
) -> None:
    recipes = tuple(word for word in arguments if word in ("one", "two", "nothing"))
    said = run_cli(*words(home, tmp_path / "out", *arguments[len(recipes) :], recipes=recipes))
    assert_refused(said, expected)
    assert not (tmp_path / "out").exists()


def test_several_processes_of_one_run_are_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    task = ("--task", "mine", "--data", home / "data")
    said = run_cli("finetune", home / "model", *task, "-o", tmp_path / "out")
    assert_refused(
        said, ["A run works in one process, and 2 were started for it (WORLD_SIZE)", "torchrun -m sparsebert"]
    )
    assert not (tmp_path / "out").exists()
    said = run_cli(*words(home, tmp_path / "out", "--on", "local:2", recipes=("one",)))
    assert_refused(said, ["do not give runs to others; got --on local:2, and 2 processes of a launcher"])
    assert not (tmp_path / "out").exists()
