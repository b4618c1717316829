"""The table of components, and components of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.measurement.bench import bench
from sparsebert.measurement.setting import Setting
from tiny import tiny_model


def test_own_components_are_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_schedules.py").write_text("def half(start, stop):\n    return 0.5\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert registry.get("schedule", "my_schedules:half")(0, 1) == 0.5
    assert sys.path == before
    registry.check("schedule", "my_schedules:half")
    del sys.modules["my_schedules"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:half", "cannot be imported: No module named 'no_such_module'; give package.module:attribute"),
        ("json:no_such_name", "cannot be imported: module 'json' has no attribute 'no_such_name'"),
        ("cubc", "Unknown schedule 'cubc'; allowed: constant, "),
        ("a b:c", "Unknown schedule 'a b:c'"),
    ],
)
def test_what_cannot_be_found_is_one_error(name: str, words: str):
    for find in (registry.get, registry.check):
        with pytest.raises(UserError) as caught:
            find("schedule", name)
        assert words in str(caught.value)


OWN_RUNTIME = """
from sparsebert.runtimes.pytorch import EAGER
from sparsebert.runtimes.runtime import Runtime

class Slow(Runtime):
    def prepare(self, model, inputs):
        return EAGER.prepare(model, inputs)

SLOW = Slow()
"""


def test_a_runtime_of_the_users_own_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_runtimes.py").write_text(OWN_RUNTIME, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    quick = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0}
    [row] = bench({"a": tiny_model("bert")}, [Setting(1, 8)], ["my_runtimes:SLOW"], **quick)
    assert row.backend == "my_runtimes:SLOW" and row.timings
    words = r"runtime 'my_runtimes:Slow' is of another kind; got ABCMeta; allowed: an instance of .*runtime\.Runtime\."
    with pytest.raises(UserError, match=words):
        registry.get("runtime", "my_runtimes:Slow")
    del sys.modules["my_runtimes"]
