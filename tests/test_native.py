"""The native library: what it is built of, when it is left out, and what it writes to."""

from __future__ import annotations

import _ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.kernels import native, native_attention, native_fff, native_linear, reference
from sparsebert.kernels.packed import SINGLE, pack_matrix
from test_fff import BUILT, HAVE, ROOT, needs_native, tensors


@contextmanager
def defaults(given: torch.dtype | str) -> Iterator[None]:
    """Another default type, or device."""
    before = torch.get_default_dtype()
    try:
        if isinstance(given, torch.dtype):
            torch.set_default_dtype(given)
        else:
            torch.set_default_device(given)
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


@needs_native
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, "meta"])
def test_kernels_do_not_care_for_defaults(default: torch.dtype | str):
    tree = tensors(300, 16, 1, 4)
    x, bias, single, blocks = torch.randn(70, 64), torch.randn(64), torch.randn(64, 64), torch.randn(64, 64)
    single *= torch.rand(64, 64) < 0.2
    heads = torch.randn(2, 3, 20, 16)
    one, several = pack_matrix(single, SINGLE), pack_matrix(blocks, 32)
    expected = [
        reference.fff(*tree, "gelu"),
        F.linear(x, single, bias),
        F.linear(x, blocks, bias),
        F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2),
    ]
    with defaults(default):
        found = [
            native_fff.fff(*tree, "gelu", None, HAVE[0])[0],
            native_linear.linear(x, one, bias, "none", HAVE[0]),
            native_linear.linear(x, several, bias, "none", HAVE[0]),
            native_attention.attention(heads, heads, heads, None, 0.25, HAVE[0]),
        ]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_native
def test_an_empty_name_of_an_instruction_set_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.FORCE, "")
    assert native.isa() == HAVE[-1]


@needs_native
@pytest.mark.parametrize("case", ["another version", "no library", "another library"])
def test_a_library_that_does_not_fit_is_left_out(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "native.so"
    if case == "another version":
        monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
        said = f"it is version {native.VERSION - 1} and must be {native.VERSION}"
    else:
        file.write_bytes(b"no library" if case == "no library" else Path(_ctypes.__file__).read_bytes())
        monkeypatch.setattr(native, "FILE", file)
        said = "file too short|invalid ELF" if case == "no library" else "undefined symbol: sb_version"
    native.library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=f"not used, install sparsebert again to rebuild them: .*({said})"):
            assert native.library() is None
        assert native.isa() is None
    finally:
        native.library.cache_clear()


def building() -> Any:
    spec = importlib.util.spec_from_file_location("native_build", ROOT / "csrc" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("compiler", "said"), [(None, "there is no C++ compiler"), ("no-such-compiler", "no-such-compiler cannot be run")]
)
def test_what_the_build_says_without_a_compiler(
    compiler: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    build = building()
    with pytest.raises(build.BuildError, match=re.escape(said)):
        build.build(tmp_path / "native.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_without_a_compiler_the_package_installs_and_runs(tmp_path: Path):
    # Of a copy, because the build removes a library that it cannot make anew.
    source, target = tmp_path / "source", tmp_path / "target"
    unbuilt = shutil.ignore_patterns("_native.so", "__pycache__")
    for name in ("src", "csrc"):
        shutil.copytree(ROOT / name, source / name, ignore=unbuilt)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    bare = {name: value for name, value in os.environ.items() if name not in ("CXX", "PYTHONPATH")}
    bare |= {"PATH": str(tmp_path)}
    how = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, str(source)], env=bare, check=True)
    code = (
        "import torch, sparsebert; from sparsebert import FastFeedForward; torch.set_grad_enabled(False)\n"
        "layer = FastFeedForward(8, 3).eval(); print(sparsebert.__file__, layer.backend, layer(torch.ones(2, 8)).shape)"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(
        run, env={**bare, "PYTHONPATH": str(target)}, check=True, capture_output=True, text=True
    ).stdout
    assert said.split()[0] == str(target / "sparsebert" / "__init__.py")
    assert "plain torch.Size([2, 8])" in said


def test_the_library_builds_and_is_clean_under_sanitizers():
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    said = building().check().splitlines()
    assert len(said) == 42 and all(line.endswith(": 0 differences") for line in said)


def test_a_processor_without_the_instructions_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.FORCE, "avx9000")
    if BUILT:
        with pytest.raises(UserError, match="SPARSEBERT_ISA asks for; got avx9000"):
            native.isa()


def test_without_the_library_everything_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "FILE", tmp_path / "none.so")
    native.library.cache_clear()
    try:
        layer = FastFeedForward(8, 3).eval()
        with torch.no_grad():
            assert layer.backend == "plain" and layer(torch.randn(2, 8)).shape == (2, 8)
    finally:
        native.library.cache_clear()
