"""The explorer's route to a model with parts switched off: on its run's validation rows, on a file, and refused."""

# ruff: noqa: E402

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("starlette", "jinja2", "plotly"):
    pytest.importorskip(_package)

from starlette.testclient import TestClient

from serving import exported
from sparsebert import Predictor
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.live import bench, scored
from sparsebert.live.annex import live_annex
from sparsebert.live.bench import Errand, StoppedError
from sparsebert.live.catalogue import AskedModel
from sparsebert.live.parts import AskedEffect, Switchboard, masks
from sparsebert.live.pool import Side, WayToRun
from sparsebert.live.texts import of_file
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import mask_model
from sparsebert.records import read_record
from test_embeddings import save_embedder
from tiny import HEADS
from tiny_run import WORDS, run_cli, save_tiny, write_task

LIMIT_S = 60
TUNED = "tuned/finetuned"
SHORT = ("--set", "training.max_steps=6", "--set", "training.learning_rate=0.003", "--set", "measure.timed=false")
TEXTS = [f"{WORDS[number % 2]} w{number}" for number in range(40)]
LABELS = [("yes", "no")[number % 2] for number in range(40)]
FILE = {"name": "mine.csv", "content": "text,label\n" + "".join(map("{},{}\n".format, TEXTS, LABELS))}
LINES = {"name": "mine.txt", "content": "\n".join(TEXTS)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fine-tuned a model on rows that lie beside it, and models without a run."""
    folder = tmp_path_factory.mktemp("parts")
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    save_tiny(folder / "start", **names)
    write_task(folder / "data")
    said = run_cli(
        "finetune", folder / "start", "--task", "mine", "--data", folder / "data", "-o", folder / "runs/tuned", *SHORT
    )
    assert said.exit_code == 0, said.output
    save_tiny(folder / "number", num_labels=1, problem_type="regression", num_hidden_layers=1)
    save_tiny(folder / "tagger", "tokens", num_hidden_layers=1)
    save_tiny(folder / "reader", "spans", num_hidden_layers=1)
    save_embedder(folder / "vectors")
    return folder


def client_of(home: Path, *names: str) -> TestClient:
    annex = live_annex([str(home / name) for name in names])
    return TestClient(application(Desk(Library([home / "runs"]), annex), None), base_url="http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    return client_of(home, "start", "number", "tagger", "reader", "vectors")


def effect(client: TestClient, key: str, off: Any, **more: Any) -> dict[str, Any]:
    """The end of the work: its state, what was found, and the line."""
    side = {"key": key, "runtime": "eager"}
    asked = {"what": "parts", "side": 1, "off": off, "left": side, "right": side, "threads": 1, **more}
    begun = client.post("/live/work", json=asked)
    if "problem" in begun.json():
        return {"state": "refused", "line": begun.json()["problem"]}
    end = time.monotonic() + LIMIT_S
    while (told := client.get("/live/work", params=begun.json()).json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return told


def given(home: Path, name: str) -> str:
    return f"model: {home / name}"


def with_head_out(home: Path, name: str, folder: Path) -> Path:
    """The model without head 3 of layer 2, by the surgeon's masks."""
    model = load_model(home / name)
    keep = np.arange(HEADS) != 2
    import torch

    mask_model(model, {"layer.1.heads": torch.from_numpy(keep)})
    save_model(model, load_tokenizer(home / name), folder)
    return folder


def right(folder: Path, texts: list[str], labels: list[str]) -> float:
    said = [one["label"] for one in Predictor(folder, "eager")(texts)]
    return float(np.mean(np.array(said) == np.array(labels)))


def test_on_the_validation_rows_of_its_run_it_begins_at_the_score_of_the_record(
    client: TestClient, home: Path, tmp_path: Path
) -> None:
    told = effect(client, TUNED, ["2h3"])
    found, record = told["found"], read_record(home / "runs/tuned")
    score = next(one for one in record.models[0].scores if one.metric == record.main_metric)
    assert told["state"] == "done" and found["metric"] == record.main_metric == "accuracy"
    assert found["before"] == {
        "value": pytest.approx(score.value),
        "low": pytest.approx(score.low),
        "high": pytest.approx(score.high),
    }
    assert found["texts"] == score.examples == 40 and found["where"] == "all 40 validation examples of mine"
    assert found["off"] == ["2h3"] and found["seconds"] > 0 and found["threads"] == 1
    lines = (home / "data/validation.csv").read_text(encoding="utf-8").splitlines()[1:]
    texts, labels, _ = zip(*(line.split(",") for line in lines), strict=True)
    cut = with_head_out(home, "runs/tuned/finetuned", tmp_path / "cut")
    assert found["after"]["value"] == pytest.approx(right(cut, list(texts), list(labels)))
    assert found["change"]["value"] == pytest.approx(found["after"]["value"] - score.value)


def test_without_everything_it_says_the_same_of_every_text(client: TestClient) -> None:
    layers = client.get("/live/parts", params={"key": TUNED}).json()["layers"]
    assert layers == [{"layer": layer, "heads": [1, 2, 3, 4], "quarters": 4, "trees": False} for layer in (1, 2, 3)]
    off = [f"{layer}{part}" for layer in (1, 2, 3) for part in ("h1", "h2", "h3", "h4", "n1", "n2", "n3", "n4")]
    found = effect(client, TUNED, off)["found"]
    # Nothing comes from any other token to the first one, which decides; half of the rows are of each class.
    assert found["after"]["value"] == 0.5 and len(found["off"]) == 24
    # All on again: the next one begins where this one did.
    assert effect(client, TUNED, ["1h1"])["found"]["before"] == found["before"]


def test_a_file_with_labels_and_one_without(client: TestClient, home: Path, tmp_path: Path) -> None:
    found = effect(client, given(home, "start"), ["2h3"], file=FILE)["found"]
    cut = with_head_out(home, "start", tmp_path / "cut")
    assert (found["metric"], found["where"]) == ("accuracy", "all 40 texts of the file")
    assert found["before"]["value"] == pytest.approx(right(home / "start", TEXTS, LABELS))
    assert found["after"]["value"] == pytest.approx(right(cut, TEXTS, LABELS))
    found = effect(client, given(home, "start"), ["2h3"], file=LINES)["found"]
    said = [one["label"] for one in Predictor(home / "start", "eager")(TEXTS)]
    assert (found["metric"], found["before"]["value"]) == ("agreement", 1)
    assert found["after"]["value"] == pytest.approx(right(cut, TEXTS, said))


def test_of_many_rows_some_are_drawn(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "MOST_ROWS", 15)
    found = effect(client, TUNED, ["2h3"], file={**LINES, "content": LINES["content"] + "\nmore w1"})["found"]
    assert found["texts"] == 15 and found["where"] == "15 of the 41 texts of the file, drawn with seed 0"


@pytest.mark.parametrize(
    ("name", "metric"), [("number", "rank correlation"), ("tagger", "agreement"), ("vectors", "cosine")]
)
def test_models_of_other_kinds(client: TestClient, home: Path, name: str, metric: str) -> None:
    found = effect(client, given(home, name), ["1h1", "1n1"], file=LINES)["found"]
    assert found["metric"] == metric and found["before"]["value"] == pytest.approx(1)
    assert found["after"]["value"] < 1 and found["texts"] == 40


def test_numbers_have_labels_too(client: TestClient, home: Path) -> None:
    rows = "".join(f"{text};{number / 7}\n" for number, text in enumerate(TEXTS))
    file = {"name": "n.csv", "content": "text;stars\n" + rows}
    found = effect(client, given(home, "number"), ["1h1"], file=file, label="stars")["found"]
    said = Predictor(home / "number", "eager").outputs(TEXTS)[:, 0]
    assert found["metric"] == "pearson"
    assert found["before"]["value"] == pytest.approx(np.corrcoef(said, np.arange(40))[0, 1], abs=1e-4)


def test_what_cannot_be_measured_is_refused_in_one_line(client: TestClient, home: Path) -> None:
    other = {"name": "o.csv", "content": "text,label\na,yes\nb,perhaps\n"}
    for key, off, more, words in (
        (TUNED, ["9h1"], {}, "no such part; got layer 9, head 1; allowed: layers 1, 2, 3"),
        (TUNED, ["1h5"], {}, "no such part; got layer 1, head 5; allowed: heads 1, 2, 3, 4"),
        (TUNED, ["<script>"], {}, "no such part; got <script>"),
        (TUNED, [], {}, "Nothing is switched off"),
        (TUNED, None, {}, "are a list of names; got NoneType"),
        (TUNED, ["1h1"], {"side": 2}, "no number of side"),
        (TUNED, ["1h1"], {"file": other}, "o.csv, column 'label', row 2: not in the label set; got 'perhaps'"),
        (TUNED, ["1h1"], {"file": FILE, "label": "gone"}, "no such column; got gone"),
        (given(home, "start"), ["1h1"], {}, "has no record that says what it was validated on; choose a file above"),
        (given(home, "tagger"), ["1h1"], {"file": FILE, "label": "label"}, "has no column of labels"),
        (given(home, "reader"), ["1h1"], {"file": LINES}, "finds answers in texts, which is not measured here"),
    ):
        told = effect(client, key, off, **more)
        assert told["state"] in ("failed", "refused") and words in told["line"] and "\n" not in told["line"]
    # The next one is measured all the same.
    assert effect(client, TUNED, ["1h1"])["state"] == "done"


def test_rows_that_are_gone_or_others_now_are_told(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home")
    # The recipe knows the folder that it was made with: a run elsewhere has the same rows.
    folder = tmp_path / "home"
    record = folder / "runs/tuned/record.json"
    record.write_text(record.read_text(encoding="utf-8").replace(str(home / "data"), str(folder / "data")), "utf-8")
    assert effect(client_of(folder), TUNED, ["1h1"])["state"] == "done"
    file = folder / "data/validation.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("yes", "no", 1), "utf-8")
    told = effect(client_of(folder), TUNED, ["1h1"])
    assert "are others now than when it was made; choose a file above" in told["line"]
    shutil.rmtree(folder / "data")
    told = effect(client_of(folder), TUNED, ["1h1"])
    assert "validation examples of finetuned of tuned are not here: The data path does not exist" in told["line"]
    assert effect(client_of(folder), TUNED, ["1h1"], file=FILE)["state"] == "done"


def test_of_a_program_nothing_can_be_switched_off(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported(tmp_path, "small")
    (tmp_path / "runs").mkdir()
    client = client_of(tmp_path, "small")
    words = "is exported: nothing inside a program can be switched off"
    assert words in client.get("/live/parts", params={"key": given(tmp_path, "small")}).json()["problem"]
    told = effect(client, given(tmp_path, "small"), ["1h1"], file=LINES)
    assert told["state"] == "failed" and words in told["line"]
    assert client.get("/live/parts", params={"key": "gone"}).status_code == 404


def test_it_ends_when_nobody_looks_and_all_is_on_again(home: Path) -> None:
    now = [0.0]
    job = Errand("a test", lambda: now[0])
    board, model = Switchboard(), AskedModel("k", "n", str(home / "start"))
    asked = AskedEffect(Side(model, WayToRun("eager", 1)), ["1h1"], of_file("mine.txt", LINES["content"], ()))
    board.measure(job, asked)
    opened = board._opened(model)
    before = {name: value.clone() for name, value in opened.inference.model.state_dict().items()}
    reports = []

    class Unseen(Errand):
        def report(self, found: dict[str, Any]) -> None:
            reports.append(found["line"])
            now[0] += bench.UNASKED_S if "switched off" in found["line"] else 0

        def go_on(self) -> None:
            if "switched off" in reports[-1]:
                keep, _ = masks(opened.inference.model, opened.layers, ["1h1"])
                weight = opened.inference.model.get_parameter("bert.encoder.layer.0.attention.output.dense.weight")
                assert keep and not weight[:, :8].any()
                now[0] += 1
            super().go_on()

    with pytest.raises(StoppedError):
        board.measure(Unseen("a test", lambda: now[0]), asked)
    assert reports[-1] == "With the parts switched off: 32 of 40 texts"
    assert all(np.array_equal(before[name], value) for name, value in opened.inference.model.state_dict().items())
