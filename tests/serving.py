"""A real server in a process of its own, in which all packages but those of requirements-serve.txt are hidden."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import httpx

from sparsebert.runs.export import export
from sparsebert.runs.subject import Wish
from tiny_run import save_tiny

ROOT = Path(__file__).parents[1]
LIMIT_S = 60
# Packages that are not named are hidden, and while the file of the second argument is there no batch ends.
STARTER = """
import sys, time
from pathlib import Path
allowed, hold = set(sys.argv.pop(1).split(",")), Path(sys.argv.pop(1))
class Hidden:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first not in allowed | sys.stdlib_module_names and not first.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hidden())
from sparsebert.deployment.predictor import Predictor
ranked = Predictor.ranked
def held(self, first, second=None):
    while hold.exists():
        time.sleep(0.002)
    return ranked(self, first, second)
Predictor.ranked = held
from sparsebert.cli import main
main()
"""


@dataclass(frozen=True)
class Running:
    """A server that listens; `hold`, while it exists, keeps its models from answering."""

    process: subprocess.Popen[bytes]
    log: Path
    hold: Path
    client: httpx.Client

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        whole = self.log.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The line of a request, which comes after its answer."""
        wait_for(lambda: f'"id": "{request_id}"'.encode() in self.log.read_bytes(), self.process)
        return next(line for line in self.lines() if line.get("id") == request_id)

    def predict(self, texts: Any, model: str = "", **more: Any) -> httpx.Response:
        return self.client.post(f"/predict/{model}".rstrip("/"), json={"texts": texts, **more})

    def metric(self, name: str, **labels: str) -> float:
        """One number of /metrics, 0 where it has not been counted yet."""
        shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        found = re.search(rf"^{re.escape(f'{name}{{{shown}}}')} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def wait_for(true: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Until `true()`, as long as the process lives."""
    end = time.monotonic() + LIMIT_S
    while not true():
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.005)


def exported(folder: Path, name: str, **overrides: Any) -> Path:
    """A tiny model for two classes, exported for ONNX Runtime."""
    save_tiny(folder / f"{name}-model", num_hidden_layers=1, **overrides)
    export(Wish(str(folder / f"{name}-model"), folder / name, ("onnx",)))
    return folder / name


@contextmanager
def serving(folder: Path, *arguments: object, token: str = "", ready: bool = True) -> Iterator[Running]:
    """A server with such arguments, whose log is in `folder`, on a port that is free; it is killed in the end."""
    folder.mkdir()
    log, hold = folder / "log", folder / "hold"
    command = [sys.executable, "-c", STARTER, _allowed(), str(hold), "serve", "--port", "0", *map(str, arguments)]
    environment = os.environ | ({"SPARSEBERT_TOKEN": token} if token else {})
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr, env=environment) as process:
        try:
            wait_for(lambda: b"\n" in log.read_bytes(), process)
            port = json.loads(log.read_text(encoding="utf-8").splitlines()[0])["port"]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=LIMIT_S) as client:
                if ready:
                    wait_for(lambda: client.get("/ready").status_code == 200, process)
                yield Running(process, log, hold, client)
        finally:
            hold.unlink(missing_ok=True)
            process.kill()


@cache
def _allowed() -> str:
    """The modules that the packages of the service bring along."""
    lines = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8").splitlines()
    named = {_plain(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    modules = {module for module, by in packages_distributions().items() if named & {_plain(one) for one in by}}
    return ",".join(sorted(modules | {"sparsebert"}))


def _plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
