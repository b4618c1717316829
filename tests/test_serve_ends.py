"""How a server starts and ends: signals, and what keeps it from starting."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving import LIMIT_S, exported, serving, wait_for
from tiny_run import assert_refused, run_cli, save_tiny

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("serve"), "model")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_those_who_wait_are_answered_before_the_end(model: Path, tmp_path: Path, how: signal.Signals):
    def refused() -> bool:
        try:
            httpx.get(f"{running.client.base_url}/health", timeout=LIMIT_S)
        except httpx.TransportError:
            return True
        return False

    with serving(tmp_path / "server", model, "--threads", 1) as running, ThreadPoolExecutor(2) as threads:
        running.hold.touch()
        waiting = [threads.submit(running.predict, "good")]
        wait_for(lambda: running.metric("sparsebert_batch_texts_count", model="model") == 1, running.process)
        waiting.append(threads.submit(running.predict, ["bad", "good"]))
        wait_for(lambda: running.metric("sparsebert_queue_texts", model="model") == 2, running.process)
        running.process.send_signal(how)
        wait_for(refused, running.process)
        assert not any(one.done() for one in waiting)
        running.hold.unlink()
        assert [len(one.result().json()["predictions"]) for one in waiting] == [1, 2]
        assert running.process.wait(LIMIT_S) == 0
        assert running.lines()[-1]["message"] == "stopped"


def test_while_a_model_loads_the_process_lives_and_is_not_ready(model: Path, tmp_path: Path):
    with serving(tmp_path / "held", model, ready=False) as running:
        # It may be ready at once; before, it says so.
        states = [(running.client.get("/health").status_code, running.client.get("/ready").status_code)]
        while states[-1][1] != 200:
            states.append((running.client.get("/health").status_code, running.client.get("/ready").status_code))
        assert set(states) <= {(200, 503), (200, 200)}


def test_a_model_that_cannot_be_opened_ends_the_server_in_one_line(model: Path, tmp_path: Path):
    shutil.copytree(model, tmp_path / "other")
    (program,) = (tmp_path / "other").rglob("*.onnx")
    program.write_bytes(b"no program")
    command = [sys.executable, "-m", "sparsebert", "serve", "--port", "0", str(model), str(tmp_path / "other")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 2 and ended.stdout == ""
    *log, last = ended.stderr.splitlines()
    assert all(line.startswith("{") for line in log)
    assert last.startswith("error: ")


def test_nobody_is_let_in_where_a_model_answers_no_texts(model: Path, tmp_path: Path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "deployment.json").write_text("{}", encoding="utf-8")
    masked = save_tiny(tmp_path / "masked", "masked_lm")
    plain = save_tiny(tmp_path / "plain")
    # One line each, without one that says where the server listens.
    for given, words in (
        ((model, tmp_path / "broken"), ["deployment.json cannot be read"]),
        ((masked,), ["is not fine-tuned for a task", "BertForMaskedLM"]),
        ((plain, "--runtime", "eagre"), ["eagre", "Did you mean 'eager'"]),
        ((plain, "--max-length", 2), ["--max-length is too short for a text; got 2"]),
        ((model, "--runtime", "eager"), ["no such program; got eager"]),
    ):
        assert_refused(run_cli("serve", "--port", 0, *given), words)


def test_what_cannot_be_served_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "two words").mkdir()
    for given, words in (
        ((model, "--host", "0.0.0.0"), ["other machines needs a token", "got 0.0.0.0", "SPARSEBERT_TOKEN"]),
        ((model, "--host", "no.such.host.invalid", "--token-file", model / "config.json"), ["holds no token"]),
        ((model, "--token-file", tmp_path / "empty"), ["holds no token"]),
        ((model, "--token-file", tmp_path / "none"), ["No such file"]),
        ((model, f"model={model}"), ["Two models have the same name", "got model"]),
        ((tmp_path / "two words",), ["is no name for a model", "got two words", "NAME=FOLDER"]),
        ((model, "--queue", 100), ["got --queue 100", "allowed: --max-texts 256 or more"]),
    ):
        assert_refused(run_cli("serve", *given), words)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "sparsebert.runtimes.program.find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    assert_refused(run_cli("serve", model), ["not installed: uvicorn (pip install 'sparsebert[serve]')"])
