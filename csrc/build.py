"""Compile the native library with whatever C++ compiler is there: `python csrc/build.py`.

The package's build calls `build`; nothing else needs to be installed for it. `--check` compiles all of it with address
and undefined-behaviour sanitizers, runs it over odd shapes, and leaves the library alone. Exit code 1 on any failure.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "src" / "sparsebert" / "kernels" / "_native.so"
COMMON = ["-std=c++17", "-fPIC", "-fno-math-errno", "-fopenmp", "-Wall", "-Wextra", "-Wno-psabi", "-fvisibility=hidden"]
FAST = ["-O3", "-DNDEBUG"]
# Without optimisation the sanitizers see at least as much, and the compiler needs a third of the time.
CAREFUL = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ISAS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
}
KERNELS = ("attention", "blocks", "elements", "fff")
BF16_ISAS = {
    "avx512_bf16": [*ISAS["avx512"], "-mavx512vbmi2", "-mavx512bf16"],
    "amx": [*ISAS["avx512"], "-mavx512vbmi2", "-mamx-tile", "-mamx-bf16"],
}
# What a compiler that knows the options must also assemble, and the name under which dispatch.cpp is told.
PROBES = {"avx512_bf16": ("vdpbf16ps %zmm0, %zmm1, %zmm2", "BF16"), "amx": ("tilerelease", "AMX")}
# Kernels on tiles also run emulated, in plain code, so that they can be tested on any processor. Trees by stages do
# without AVX-512's dot products: walking was faster there.
TILE_KERNELS = {
    "tile_fff": ("emulated", "amx"),
    "tile_linear": ("emulated", *BF16_ISAS),
    "tile_attention": ("emulated", *BF16_ISAS),
}


class BuildError(Exception):
    """The library cannot be built here; the message says why."""


def build(output: Path = OUTPUT) -> None:
    """Compile every kernel once an instruction set, and link. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        finished = _link(FAST, ["-shared"], Path(folder))
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = output.with_suffix(".new")
        shutil.copyfile(finished, beside)
        os.replace(beside, output)


def check() -> str:
    """Compile with sanitizers, run, and return what was printed. Raises BuildError if either objects."""
    with tempfile.TemporaryDirectory() as folder:
        return _run([_link(CAREFUL, [HERE / "check.cpp", HERE / "check_tiles.cpp"], Path(folder))])


def _link(mode: list[str], more: list[object], folder: Path) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise BuildError("there is no C++ compiler; everything runs on the plain PyTorch path")
    if platform.machine() not in ("x86_64", "AMD64"):
        raise BuildError(f"the kernels are for x86-64, this is {platform.machine()}")
    known = [isa for isa in BF16_ISAS if _knows(compiler, isa, folder)]
    options = ISAS | {"emulated": []} | {isa: BF16_ISAS[isa] for isa in known}
    objects = []
    for kernel, isas in ({kernel: tuple(ISAS) for kernel in KERNELS} | TILE_KERNELS).items():
        for isa in (isa for isa in isas if isa in options):
            objects.append(folder / f"{kernel}-{isa}.o")
            source = HERE / f"{kernel}.cpp"
            _run([compiler, *COMMON, *mode, *options[isa], f"-DSB_ISA={isa}", "-c", source, "-o", objects[-1]])
    finished = folder / "native"
    told = [f"-DSB_{PROBES[isa][1]}" for isa in known]
    _run([compiler, *COMMON, *mode, *told, *objects, HERE / "dispatch.cpp", *more, "-o", finished])
    return finished


def _knows(compiler: str, isa: str, folder: Path) -> bool:
    """Whether the compiler has the options, and its assembler the instructions."""
    probe = folder / "probe.cpp"
    probe.write_text(f'void probe() {{ asm volatile("{PROBES[isa][0]}"); }}\n', encoding="utf-8")
    try:
        _run([compiler, *BF16_ISAS[isa], "-c", probe, "-o", folder / "probe.o"])
    except BuildError:
        return False
    return True


def _run(command: list[object]) -> str:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{Path(str(command[0])).name} failed:\n{done.stdout}{done.stderr}".strip())
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="run all of it under sanitizers instead")
    options = parser.parse_args()
    try:
        if options.check:
            print(check(), end="")
        else:
            build()
    except BuildError as error:
        sys.exit(f"not built: {error}")
