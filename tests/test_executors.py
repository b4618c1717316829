"""Executors: results as they come, workers that die, errors that others survive, and shares of a machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsebert.errors import UserError
from sparsebert.runs.executors import Failed, executor
from sparsebert.runs.executors.cluster import _own_stdout
from sparsebert.runs.executors.local import shares


def square(number: int) -> tuple[int, int]:
    """A result, and by which process."""
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 1:
        raise UserError("One is no number", got=number)
    if number == 2:
        raise KeyError("a bug")
    return number


def die(place: str) -> int:
    """Kill this process as often as the folder has files, one of which each death takes along."""
    left = sorted(Path(place).iterdir())
    if left:
        left[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def settings(name: str) -> tuple[str, int]:
    import torch

    return os.environ[name], torch.get_num_threads()


def lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("on", [None, "local", "local:1", "local:2"])
def test_every_job_has_its_result(on: str | None) -> None:
    workers = executor(on)
    found = dict(workers.map(square, range(5)))
    assert {job: result[0] for job, result in found.items()} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    used = {result[1] for result in found.values()}
    assert len(used) == workers.workers if on == "local:2" else len(used) == 1
    assert (os.getpid() in used) == (on in (None, "local"))
    assert not any(lives(number) for number in used - {os.getpid()})


@pytest.mark.parametrize("on", ["local", "local:2"])
def test_jobs_are_pulled_as_workers_become_free_and_after_the_results_before(on: str) -> None:
    events: list[tuple[str, int]] = []

    def jobs() -> Iterator[int]:
        for number in range(4):
            events.append(("begun", number))
            yield number

    workers = executor(on)
    for job, _ in workers.map(square, jobs()):
        events.append(("done", job))
    ahead = [sum(1 if what == "begun" else -1 for what, _ in events[: place + 1]) for place in range(len(events))]
    assert max(ahead) == workers.workers and ahead[-1] == 0


def test_errors_of_one_job_do_not_stop_the_others() -> None:
    found = dict(executor("local:2").map(fail, range(4)))
    assert found[0] == 0 and found[3] == 3
    assert found[1] == Failed("One is no number; got 1.")
    assert isinstance(found[2], Failed) and found[2].message == "KeyError: 'a bug'" and "in fail" in found[2].traceback


def test_here_a_bug_is_raised_where_it_is() -> None:
    with pytest.raises(KeyError, match="a bug"):
        dict(executor().map(fail, range(4)))
    assert dict(executor().map(fail, (0, 1))) == {0: 0, 1: Failed("One is no number; got 1.")}


@pytest.mark.parametrize(("deaths", "finishes"), [(1, True), (2, True), (3, False)])
def test_a_job_begins_again_twice(
    deaths: int, finishes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    for number in range(deaths):
        (tmp_path / "bad" / str(number)).touch()
    found = dict(executor("local:2").map(die, [str(tmp_path / "bad"), str(tmp_path / "good")]))
    assert isinstance(found[str(tmp_path / "good")], int)
    bad = found[str(tmp_path / "bad")]
    if finishes:
        assert isinstance(bad, int)
    else:
        assert bad == Failed("3 workers died of it, the last one so: SIGKILL, perhaps for want of memory")
    assert capsys.readouterr().err.count("A worker died (SIGKILL") == min(deaths, 2)


def test_nobody_is_left_when_the_results_are_not_all_wanted() -> None:
    results = executor("local:2").map(square, range(100))
    _, (_, first) = next(results)
    results.close()
    assert not lives(first)


def test_cores_and_gpus_are_shared_out() -> None:
    assert shares(2, 8, [], None, {}) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert shares(3, 8, ["0"], None, {}) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(4, 2, [], None, {}) == [{"OMP_NUM_THREADS": "1"}] * 4
    # The user's own number is of a process.
    assert shares(2, 8, [], None, {"OMP_NUM_THREADS": "3"}) == [{"OMP_NUM_THREADS": "3"}] * 2
    assert shares(2, 8, [], None, {"OMP_NUM_THREADS": "6"}) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert shares(1, 8, [], 2, {"OMP_NUM_THREADS": "1"}) == [{"OMP_NUM_THREADS": "2"}]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares(3, 8, ["4", "7"], None, {})] == ["4", "7", "4"]


def test_a_worker_has_its_share_before_it_imports_torch() -> None:
    assert dict(executor("local:1", cpus_per_job=2).map(settings, ["OMP_NUM_THREADS"])) == {"OMP_NUM_THREADS": ("2", 2)}


@pytest.mark.parametrize(
    "on",
    [
        "",
        "here",
        "local:",
        "local:0",
        "local:-1",
        "local:two",
        "local:2.5",
        "local:1025",
        "local:" + 5000 * "9",
        "ray:",
        "rays://a:1",
    ],
)
def test_other_words_are_refused(on: str) -> None:
    with pytest.raises(UserError, match=r"local:1 to local:1,024|local, local:N, ray, ray://HOST:PORT"):
        executor(on)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed; pip install 'sparsebert\[ray\]'"):
        executor("ray")


def test_what_threads_of_ray_say_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    with _own_stdout():
        sys.stdout.write("a result\n")
        thread = threading.Thread(target=sys.stdout.write, args=("(raylet) A node is dead.\n  its log\n  more of it",))
        thread.start()
        thread.join()
        sys.stdout.write("another\n")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a result\nanother\n", "(raylet) A node is dead.\n")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "No Ray cluster answers at 127.0.0.1:9"),
        ("127.0.0.1", "HOST:PORT"),
        ("nowhere:x", "HOST:PORT"),
        ("127.0.0.1:99999", "No Ray cluster answers"),
    ],
)
def test_a_cluster_that_does_not_answer(address: str, said: str) -> None:
    pytest.importorskip("ray")
    started = time.monotonic()
    with pytest.raises(UserError, match=said):
        executor(f"ray://{address}")
    assert time.monotonic() - started < 30
