"""Peak memory of one model, measured in a process of its own.

`python -m sparsebert.measurement.memory FOLDER BATCH LENGTH` is that process.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoConfig

from sparsebert.counts import example_inputs
from sparsebert.errors import UserError
from sparsebert.models.heads import AUTO, saved_head
from sparsebert.models.source import disk_bytes

STATUS = Path("/proc/self/status")
# Writing 5 here sets the peak resident memory back to the present one (Linux, proc(5)).
RESET = Path("/proc/self/clear_refs")


def peak_memory(folder: Path, batch: int, length: int) -> float:
    """Peak megabytes (2**20 bytes) that loading a saved model and one forward pass in float32 add to a fresh process.

    The interpreter and the libraries, about the same for every model, are not counted, nor are parts of the weight
    file that are never read, such as the rows of unused tokens. Linux only. Raises UserError if the folder has no
    weights, and with the last line of the other process if that fails.
    """
    disk_bytes(folder)
    command = [sys.executable, "-m", "sparsebert.measurement.memory", str(folder), str(batch), str(length)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"The memory of a model could not be measured: {reason}", got=folder)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"])


def main(arguments: list[str]) -> None:
    """Load, run once, print {"peak_memory_mb": ...}."""
    folder, batch, length = arguments[0], int(arguments[1]), int(arguments[2])
    auto = AUTO[saved_head(AutoConfig.from_pretrained(folder, trust_remote_code=False))]

    def load_and_run(batch: int, length: int) -> None:
        model = auto.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
        with torch.inference_mode():
            model(**example_inputs([model], batch, length))

    # The first time imports most of the libraries, about 130 MB that no model is to blame for.
    load_and_run(1, 1)
    gc.collect()
    before_mb = status_mb("VmRSS")
    RESET.write_text("5", encoding="ascii")
    load_and_run(batch, length)
    sys.stdout.write(json.dumps({"peak_memory_mb": round(status_mb("VmHWM") - before_mb, 1)}) + "\n")


def status_mb(field: str) -> float:
    """A memory field of this process in 2**20 bytes, such as VmRSS (resident now) or VmHWM (its peak)."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
    return int(lines[field].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
