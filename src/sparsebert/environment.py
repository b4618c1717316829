"""Where a run took place: versions, commit, processor. No host names, no paths.

Importing this module does not import torch.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from sparsebert.records import Environment

PACKAGES = (
    "sparsebert",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "scikit-learn",
    "scipy",
    "numpy",
)
# Instruction sets that decide how fast matrix products are: x86 first, then Arm.
FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
CPUINFO = Path("/proc/cpuinfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
# What torchrun and the like tell every process that they start.
WORLD_SIZE, RANK = "WORLD_SIZE", "RANK"


def environment() -> Environment:
    """Describe this machine and this installation."""
    import torch

    cpu = cpu_fields()
    commit, dirty = commit_of(Path(__file__).resolve().parents[2])
    return Environment(
        python=platform.python_version(),
        packages=versions(),
        commit=commit,
        dirty=dirty,
        machine=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cpu_flags=cpu_flags(cpu),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_gb=round(_memory_bytes() / 2**30, 1),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    )


def supports_bf16_training() -> bool:
    """Whether bf16 is faster than fp32 here: a CPU with AMX, one of AMD's with AVX-512 BF16, or a GPU that has bf16.

    Elsewhere it is emulated, and Intel's AVX-512 BF16 was measured at half the rate of fp32 (docs/adr/0008).
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = cpu_fields()
    flags = cpu_flags(cpu)
    return "amx_bf16" in flags or ("avx512_bf16" in flags and cpu.get("vendor_id") == "AuthenticAMD")


def launched() -> int:
    """How many processes a launcher such as torchrun started together, this one among them; 1 without one."""
    count = os.environ.get(WORLD_SIZE, "")
    return int(count) if count.isdigit() else 1


def is_first() -> bool:
    """Whether this is the first of the processes that a launcher started."""
    return os.environ.get(RANK, "0") == "0"


def versions() -> dict[str, str]:
    """Installed version of each package that can change a result; one that is not installed is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout at `root` and whether it has changes; (None, None) if `root` is no checkout of ours."""
    if not ((root / ".git").exists() and (root / "src" / "sparsebert").is_dir()):
        return None, None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return commit or None, None if changes is None else bool(changes)


def cpu_name() -> str:
    """What the processor calls itself."""
    return cpu_fields().get("model name", platform.processor() or platform.machine())


def cpu_fields() -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo; empty where there is no such file."""
    if not CPUINFO.is_file():
        return {}
    first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags(cpu: Mapping[str, str]) -> tuple[str, ...]:
    """The flags of `FLAGS` that a processor has, in that order ("flags" on x86, "Features" on Arm)."""
    present = set(cpu.get("flags", cpu.get("Features", "")).split())
    return tuple(flag for flag in FLAGS if flag in present)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _memory_bytes() -> int:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = MEMORY_LIMIT.read_text(encoding="utf-8").strip() if MEMORY_LIMIT.is_file() else "max"
    return installed if limit == "max" else min(installed, int(limit))
