"""Print the pip option that finds a torch without CUDA, or nothing where it is not wanted or not to be had.

`python tools/cpu_index.py URL`: on Linux the wheels of the Python package index bring gigabytes of CUDA along. On a
machine without an NVIDIA driver this asks, for three seconds at most, whether URL answers. Standard library only,
because it runs before anything is installed.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

# The second is the driver's door in the Windows subsystem for Linux.
DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
TIMEOUT_S = 3


def pip_option(index: str, drivers: Sequence[Path] = DRIVERS) -> str:
    """`--extra-index-url INDEX`, or empty."""
    if not index or any(driver.exists() for driver in drivers):
        return ""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=TIMEOUT_S):
            return f"--extra-index-url {index}"
    except (urllib.error.URLError, TimeoutError):
        return ""


if __name__ == "__main__":
    sys.stdout.write(pip_option(sys.argv[1]) + "\n")
