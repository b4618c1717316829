"""What all tests share: no network, one thread, fixed seeds, and a home of their own for the hub's files."""

from __future__ import annotations

import gc
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any

# Before torch, transformers and the hub's client are imported, here or in a process that a test starts: one thread, no
# models or data that happen to be on this machine, a hub that refuses at once, GPU kernels that run on the CPU, and no
# pictures, which take most of the time of a tiny run.
HUB_HOME = tempfile.mkdtemp(prefix="sparsebert-tests-")
os.environ |= {
    "OMP_NUM_THREADS": "1",
    # Where there are two, the one that waits sleeps, because cores have other tests to do.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HOME": HUB_HOME,
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "TOKENIZERS_PARALLELISM": "false",
    "TRITON_INTERPRET": "1",
    # What torch compiles does without vectors, which take trial programs and twice as long in the C++ compiler, and
    # without interpreters that wait for more to compile.
    "TORCHINDUCTOR_VEC_ISA_OK": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "SPARSEBERT_PICTURES": "off",
}

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from sparsebert import timing  # noqa: E402

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes first: a worker that begins a long one last works on alone for minutes."""
    long = {item.path for item in items if item.get_closest_marker("process")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    gc.unfreeze()
    shutil.rmtree(HUB_HOME, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Every training and every measurement collects all garbage, and would look through all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of modules marked `pictures`, which look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("pictures"):
            patch.setenv("SPARSEBERT_PICTURES", "on")
        yield


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _short_samples(request: pytest.FixtureRequest) -> Iterator[None]:
    """Times are of single calls after three to warm up, no more rounds than asked for, but in modules marked `timing`.

    Most tests ask what is timed, and not how long it takes.
    """
    calls = timing._calls_per_sample
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("timing"):
            patch.setattr(timing, "_calls_per_sample", lambda variant, *_: calls(variant, 0, 0, time.perf_counter_ns))
            patch.setattr(timing, "_all_narrow", lambda *_: True)
        yield


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test sets, or a library for it (as transformers does to compile), is not there in the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_other_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine only in tests marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test without the mark `network` tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
