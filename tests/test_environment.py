from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from sparsebert import environment as module
from sparsebert.environment import FLAGS, commit_of, cpu_fields, cpu_flags, environment, supports_bf16_training

CPUINFO = """processor\t: 0
model name\t: Example CPU @ 2.00GHz
flags\t\t: fpu sse2 {flags} avx2 fma

processor\t: 1
model name\t: Another CPU
flags\t\t: amx_bf16
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_environment_of_this_machine() -> None:
    found = environment()
    assert found.packages["torch"] == torch.__version__
    assert found.packages["transformers"] == metadata.version("transformers")
    assert {"sparsebert", "datasets", "accelerate", "safetensors", "scikit-learn", "numpy"} <= found.packages.keys()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.threads == torch.get_num_threads()
    assert 0.1 < found.memory_gb < 100_000
    assert found.cpu and set(found.cpu_flags) <= set(FLAGS)
    assert (found.gpu is None) == (not torch.cuda.is_available())


def test_no_host_name_and_no_path() -> None:
    text = environment().model_dump_json()
    assert socket.gethostname() not in text
    assert "/home" not in text and str(Path.cwd()) not in text and str(Path(sys.prefix)) not in text


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, sparsebert.environment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flags_are_of_the_first_processor_in_table_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags="avx512f"))
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    assert cpu_fields()["model name"] == "Example CPU @ 2.00GHz"
    assert cpu_flags(cpu_fields()) == ("avx2", "fma", "avx512f")
    assert environment().cpu == "Example CPU @ 2.00GHz"


def test_flags_of_an_arm_processor() -> None:
    assert cpu_flags({"Features": "fp asimd i8mm bf16"}) == ("asimd", "i8mm", "bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides by itself")
@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "avx512f avx512_bf16", False),
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx512f", False),
    ],
)
def test_bf16_training_needs_a_processor_that_is_fast_at_it(
    vendor: str, flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}\n" + CPUINFO.format(flags=flags))
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    assert supports_bf16_training() is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides by itself")
def test_a_machine_that_does_not_tell_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "nothing")
    assert environment().cpu_flags == () and environment().cpu
    assert supports_bf16_training() is False


def test_memory_is_what_the_container_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limit").write_text(f"{2**29}\n")
    monkeypatch.setattr(module, "MEMORY_LIMIT", tmp_path / "limit")
    assert environment().memory_gb == 0.5


def test_commit_and_changes_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "src" / "sparsebert").mkdir(parents=True)
    (tmp_path / "src" / "sparsebert" / "a.py").write_text("a = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == (commit, False)
    (tmp_path / "src" / "sparsebert" / "b.py").write_text("b = 1\n")
    assert commit_of(tmp_path) == (commit, True)


def test_another_project_s_checkout_is_not_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) == (None, None)


def test_a_wheel_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "src" / "sparsebert").mkdir(parents=True)
    assert commit_of(tmp_path) == (None, None)


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src" / "sparsebert").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == (None, None)
