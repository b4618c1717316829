"""A real Ray cluster of two nodes, of which one is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparsebert.recipe.load import load_recipe
from sparsebert.records import read_record
from sparsebert.runs.sweep import Point, sweep
from test_sweep_on import quick_recipe
from tiny_run import save_tiny, write_task

pytestmark = pytest.mark.process
LIMIT_S = 480


def test_all_records_are_there_after_a_node_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    save_tiny(tmp_path / "model", "base")
    write_task(tmp_path / "data")
    quick_recipe(tmp_path / "recipe.yaml", steps=200)
    script = Path(__file__).with_name("ray_script.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert said["killed"] and said["nodes"] == 1
    assert done.stderr.count("A worker died (") == 1, done.stderr
    names = [f"seed={seed}" for seed in range(3)]
    assert sorted(said["records"]) == names
    assert {record[0] for record in said["records"].values()} == {"finished"}
    monkeypatch.chdir(tmp_path)
    for name in names[:2]:
        recipe = load_recipe(tmp_path / "recipe.yaml", seed=int(name[-1]), model=str(tmp_path / "model"), data="data")
        [(_, alone)] = sweep([Point("alone", recipe)], tmp_path / f"alone-{name}", "test", keep_models=False)
        there = read_record(tmp_path / "out" / name)
        assert there.models[0].scores == alone.models[0].scores and there.recipe_hash == alone.recipe_hash
