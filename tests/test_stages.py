"""Stages: finished work is found again, and what is missing, damaged or of something else is made again, aloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from sparsebert.pruning.knapsack import CostTable
from sparsebert.runs.compress import LatencyTable
from sparsebert.runs.stages import Stage, once
from toy import both

DAMAGES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one bit": lambda file: file.write_bytes(flipped(file.read_bytes())),
}


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


class Number(BaseModel):
    value: float


def counting(folder: Path, name: str, calls: list[str], content: str = "made") -> Number:
    """Work that leaves a file in a folder."""
    calls.append(name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "file").write_text(content)
    return Number(value=len(calls))


def test_stage_works_once(tmp_path: Path):
    calls: list[int] = []

    def work() -> Number:
        calls.append(1)
        return Number(value=1 / 3)

    stage = Stage(tmp_path / "deep" / "number.json")
    first, second = once(stage, Number, work), once(stage, Number, work)
    assert first == second and first.result == Number(value=1 / 3)
    assert calls == [1]
    assert [path.name for path in stage.file.parent.iterdir()] == ["number.json"]


def test_stage_that_fails_leaves_nothing(tmp_path: Path):
    def fail() -> Number:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(Stage(tmp_path / "number.json"), Number, fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["number.json", "made/file"])
def test_what_is_damaged_is_made_again_aloud(file: str, damage: str, tmp_path: Path, capsys):
    calls: list[str] = []
    stage = Stage(tmp_path / "number.json", (tmp_path / "made",))
    done = [once(stage, Number, lambda: counting(tmp_path, "made", calls))]
    assert capsys.readouterr().err == ""
    DAMAGES[damage](tmp_path / file)
    done.append(once(stage, Number, lambda: counting(tmp_path, "made", calls)))
    assert calls == ["made", "made"] and (tmp_path / "made" / "file").read_text() == "made"
    # The same files were made, so what stands on them still does.
    assert done[0].digest == done[1].digest
    said = capsys.readouterr().err
    assert "so it is made again" in said if (file, damage) != ("number.json", "gone") else said == ""


def test_what_is_put_into_a_folder_later_does_not_matter(tmp_path: Path):
    calls: list[str] = []
    stage = Stage(tmp_path / "number.json", (tmp_path / "made",))
    for _ in range(2):
        once(stage, Number, lambda: counting(tmp_path, "made", calls))
        (tmp_path / "made" / "README.md").write_text("a card")
    assert calls == ["made"]


def chain(folder: Path, calls: list[str], first: str = "made") -> Iterator[float]:
    """Two stages, of which the second stands on the first."""
    last = Stage(folder / "second.json", (folder / "second",))
    begun = once(
        Stage(folder / "first.json", (folder / "first",)),
        Number,
        lambda: counting(folder, "first", calls, first),
        later=[last],
    )
    yield begun.result.value
    yield once(last, Number, lambda: counting(folder, "second", calls), after=begun.digest).result.value


def test_what_a_finished_stage_stood_on_may_be_gone(tmp_path: Path):
    calls: list[str] = []
    assert list(chain(tmp_path, calls)) == [1, 2]
    (tmp_path / "first" / "file").unlink()
    assert list(chain(tmp_path, calls)) == [1, 2] and calls == ["first", "second"]
    (tmp_path / "second" / "file").write_text("damaged")
    assert list(chain(tmp_path, calls)) == [3, 4] and calls == ["first", "second"] * 2


def test_what_stands_on_something_else_is_made_again(tmp_path: Path, capsys):
    calls: list[str] = []
    list(chain(tmp_path, calls))
    (tmp_path / "first.json").unlink()
    assert list(chain(tmp_path, calls, "other")) == [3, 4]
    assert "second.json speaks of stands on something that has changed" in capsys.readouterr().err


def test_scratch_is_gone_when_the_stage_is_done(tmp_path: Path):
    stage = Stage(tmp_path / "number.json", scratch=tmp_path / "checkpoints")
    for _ in range(2):
        (tmp_path / "checkpoints").mkdir()
        once(stage, Number, lambda: Number(value=1))
        assert [path.name for path in tmp_path.iterdir()] == ["number.json"]


def test_a_latency_table_comes_back_as_it_was(tmp_path: Path):
    table = CostTable({"head": {0: 0.0, 12: 1 / 3}, "neuron": {0: 0.0, 3072: 0.1 + 0.2}}, layer=1e-7, fixed=2 / 3)
    stage = Stage(tmp_path / "table.json")
    written = once(stage, LatencyTable, lambda: LatencyTable(table=table))
    read = once(stage, LatencyTable, lambda: LatencyTable(table=CostTable({}, 0.0)))
    assert read.result.table == written.result.table == table
    assert read.result.table.cost(both(6, 3072)) == table.cost(both(6, 3072))
    assert json.loads(stage.file.read_text())["made"] == {}
