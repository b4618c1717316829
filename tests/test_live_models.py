"""The explorer's routes to models: answers, times, insides, a file, a race, and what is refused in one line."""

# ruff: noqa: E402

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("starlette", "jinja2", "plotly"):
    pytest.importorskip(_package)

import torch
from starlette.testclient import TestClient
from transformers import BertTokenizerFast, PreTrainedModel

from example_record import full_record
from exploring import EVIL, several, with_models
from serving import exported
from sparsebert import Predictor
from sparsebert.data.batches import rows_of
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.live import routes, turns
from sparsebert.live.annex import live_annex
from sparsebert.live.catalogue import AskedModel
from sparsebert.live.inside import MOST_TOKENS, Microscope, seen
from sparsebert.live.neighbours import NEAREST
from sparsebert.live.pool import MOST_OPEN, Pool, Side, WayToRun
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_tokenizer, save_model
from sparsebert.models.surgeon import shrink
from sparsebert.records import Shape
from test_embeddings import save_embedder
from test_report_page import Reader
from tiny import FAMILIES, HIDDEN, tiny_model
from tiny_run import SPECIAL, WORDS, assert_refused, run_cli, save_tiny

HERE, TOKEN = "http://127.0.0.1:8080", "a-secret-of-tests"
DENSE, SMALL = "obs0/dense", "obs0/4x"
LIMIT_S = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with two models, and beside them models of their own: a broken one, and one for numbers."""
    folder = tmp_path_factory.mktemp("live")
    with_models(folder / "runs")
    save_tiny(folder / "number", num_labels=1, problem_type="regression", num_hidden_layers=1)
    save_tiny(folder / "pairs", "pair_classification", num_labels=2, num_hidden_layers=1)
    save_tiny(folder / "broken", num_hidden_layers=1)
    (folder / "broken" / "model.safetensors").write_bytes(b"short")
    return folder


def client_of(folder: Path, *names: str, runs: str = "runs", token: str | None = None) -> TestClient:
    annex = live_annex([str(folder / name) for name in names])
    library = Library([folder / runs] if runs else [])
    return TestClient(application(Desk(library, annex), token), base_url=HERE)


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    return client_of(home, "number", "pairs", "broken")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.05)


def given(home: Path, name: str) -> str:
    return f"model: {home / name}"


def asked(what: str, left: str = DENSE, right: str = SMALL, runtime: str = "eager", **more: Any) -> dict[str, Any]:
    sides = {name: {"key": key, "runtime": runtime} for name, key in (("left", left), ("right", right))}
    return {"what": what, "threads": 1, "text": "good w1 w2", **sides, **more}


def worked(client: TestClient, what: str, *sides: str, **more: Any) -> dict[str, Any]:
    """The end of the work: its state, what was found, and the line."""
    begun = client.post("/live/work", json=asked(what, *sides, **more))
    assert begun.status_code == 202, begun.text
    end = time.monotonic() + LIMIT_S
    while (told := client.get("/live/work", params=begun.json()).json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return told


def test_answers_are_those_of_a_predictor_with_times_of_both(client: TestClient, home: Path) -> None:
    told = worked(client, "answers")
    assert told["state"] == "done"
    left, right = told["found"]["sides"]
    for side, folder in ((left, "dense"), (right, "4x")):
        expected = Predictor(home / "runs" / "obs0" / folder, "eager")("good w1 w2", top_k=None)
        assert side["labels"] == expected and side["chances"] and side["runtime"] == "eager"
        assert side["ms"]["n"] >= turns.FEWEST and side["ms"]["q25"] <= side["ms"]["median"] <= side["ms"]["q75"]
    assert told["found"]["faster"]["n"] == left["ms"]["n"] and told["found"]["threads"] == 1
    assert (left["name"], left["cut"], left["programs"]) == ("dense of obs0", None, False)


def test_pairs_values_and_long_texts(client: TestClient, home: Path) -> None:
    told = worked(client, "answers", DENSE, given(home, "pairs"), pair="bad w3", text="w1 " * 200)
    left, right = told["found"]["sides"]
    assert left["cut"] == right["cut"] == 64 and left["labels"][0]["label"] in ("negative", "positive")
    expected = Predictor(home / "pairs", "eager")({"text": "w1 " * 200, "text_pair": "bad w3"}, top_k=None)
    assert right["labels"] == expected
    left, right = worked(client, "answers", given(home, "pairs"), given(home, "number"))["found"]["sides"]
    assert "reads pairs of texts" in left["problem"] and right["chances"] is False
    assert "ms" in right and len(right["labels"]) == 1


def test_models_of_embeddings_give_vectors(home: Path, tmp_path: Path) -> None:
    save_embedder(tmp_path / "vectors")
    client = client_of(tmp_path, "vectors", runs="")
    key = given(tmp_path, "vectors")
    left, right = worked(client, "answers", key, key)["found"]["sides"]
    assert left["labels"] == [] and left["width"] == HIDDEN and "ms" in right and not left["chances"]
    found = worked(client, "file", key, key, file={"name": "a.txt", "content": "w1\ngood w3"})["found"]
    assert found["same"] is None and found["mean"] == pytest.approx(0, abs=1e-6)
    assert "gives vectors" in worked(client, "inside", key, key)["found"]["sides"][0]["problem"]
    # Opening torch alone takes more.
    found = worked(client, "race", key, key, texts=100, batch=32, memory=128)["found"]
    assert found["over"] and found["turns"] == 0 and not any(side["fits"] or side["done"] for side in found["sides"])


def test_the_nearest_texts_are_those_of_the_largest_cosines(home: Path, tmp_path: Path) -> None:
    texts = ["w1", "good w3", "w2 w2 bad", "bad", "w3 w1 good", "nothing w2", "w1"]
    for name in ("one", "other"):
        save_embedder(tmp_path / name)
    client = client_of(tmp_path, "one", "other", str(home / "runs" / "obs0" / "dense"), runs="")
    one, other = given(tmp_path, "one"), given(tmp_path, "other")
    file = {"name": "a.txt", "content": "\n".join([*texts, " good w1 w2"])}
    found = worked(client, "neighbours", one, other, file=file)["found"]
    assert (found["texts"], found["same"]) == (6, NEAREST)
    vectors = np.array([one["embedding"] for one in Predictor(tmp_path / "one")(["good w1 w2", *texts[:6]])])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = dict(zip(texts[:6], (vectors[1:] @ vectors[0]).tolist(), strict=True))
    expected = sorted(cosines, key=cosines.__getitem__, reverse=True)[:NEAREST]
    for side in found["sides"]:
        assert [row["text"] for row in side["nearest"]] == expected
        assert [row["cosine"] for row in side["nearest"]] == pytest.approx([cosines[text] for text in expected])
    assert "no other text" in worked(client, "neighbours", one, one, file=file | {"content": "good w1 w2"})["line"]
    # Without a file, of the package's reviews; and a model that gives none says so, beside one that does.
    found = worked(client, "neighbours", one, given(home / "runs" / "obs0", "dense"))["found"]
    assert found["same"] is None and found["texts"] > 50 and len(found["sides"][0]["nearest"]) == NEAREST
    assert "gives no vectors" in found["sides"][1]["problem"]


def test_a_model_that_does_not_load_is_a_line_and_the_other_one_answers(client: TestClient, home: Path) -> None:
    told = worked(client, "answers", given(home, "broken"), SMALL)
    left, right = told["found"]["sides"]
    assert told["state"] == "done" and "ms" in right and told["found"]["faster"] is None
    assert "\n" not in left["problem"] and "broken" in left["problem"]
    for what in ("file", "race"):
        more = {"file": {"name": "a.txt", "content": "w1"}, "texts": 100, "batch": 1, "memory": 0}
        told = worked(client, what, given(home, "broken"), SMALL, **more)
        assert told["state"] == "failed" and "broken" in told["line"] and "\n" not in told["line"]
    assert "broken" in worked(client, "inside", given(home, "broken"))["found"]["sides"][0]["problem"]
    assert "no such runtime" in str(worked(client, "answers", runtime="no such runtime")["found"]["sides"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"text": ""}, "The text is empty"),
        ({"text": "a" * 2**20}, "got 1,048,576 characters; allowed: 20,000"),
        ({"text": "a", "pair": " "}, "The second text is empty"),
        ({"left": {"key": "gone", "runtime": "eager"}}, "no such model"),
        ({"threads": 1000}, "no number of threads"),
        ({"what": "nonsense"}, "allowed are answers, inside, neighbours, file, race"),
        ({"what": "file"}, "No file was chosen"),
        ({"what": "file", "file": {"name": EVIL, "content": "\n"}}, "holds no text"),
        ({"what": "race", "texts": 3, "batch": 1}, "no number of texts"),
        ({"what": "race", "texts": 100, "batch": True}, "no number of batch"),
        ({"what": "race", "texts": 100, "batch": 1, "memory": 64}, "no number of memory; got 64; allowed: 0, 128"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(client: TestClient, more: dict[str, Any], words: str) -> None:
    answer = client.post("/live/work", json=asked("answers") | more)
    assert "number" not in answer.json() and words in answer.json()["problem"] and "\n" not in answer.json()["problem"]


def test_bodies_that_are_none_and_other_pages_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post("/live/work", content=b"{").status_code == 400
    assert client.post("/live/work", json=[1]).status_code == 422
    assert client.get("/live/work", params={"number": "none"}).status_code == 404
    assert client.post("/live/stop", json={"number": "none"}).status_code == 404
    body = json.dumps(asked("answers"))
    for origin, status in ((HERE, 202), ("http://evil.example", 403), ("null", 403)):
        assert client.post("/live/work", content=body, headers={"Origin": origin}).status_code == status
    other = {"Host": "evil.example"}
    assert client.post("/live/work", content=body, headers=other).status_code == 421
    monkeypatch.setattr(routes, "MOST_BODY", 100)
    answer = client.post("/live/work", json=asked("answers", text="a" * 200))
    assert answer.status_code == 413 and "too much" in answer.json()["problem"]


def test_with_a_token_nobody_asks_without_it(home: Path) -> None:
    client = client_of(home, token=TOKEN)
    assert client.post("/live/work", json=asked("answers")).status_code == 401
    assert client.get("/live/model", params={"key": SMALL}).status_code == 401
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert worked(client, "answers")["state"] == "done"


def test_a_model_says_what_it_runs_in_and_what_it_decides_otherwise(client: TestClient, home: Path) -> None:
    told = client.get("/live/model", params={"key": SMALL}).json()
    names = [one["name"] for one in told["runtimes"]]
    assert names[:2] == ["auto", "eager"] and "openvino-int8" not in names
    assert told["examples"][0]["text"] == "a film that is not without charm"
    assert client.get("/live/model", params={"key": "gone"}).status_code == 404


def test_a_file_is_compared_text_by_text(client: TestClient, home: Path) -> None:
    lines = [f"good w{number} bad w{3 * number}" for number in range(1, 20)]
    file = {"name": "mine.txt", "content": "\n".join(["", *lines])}
    found = worked(client, "file", file=file)["found"]
    said = [
        [one["label"] for one in Predictor(home / "runs" / "obs0" / name, "eager")(lines)] for name in ("dense", "4x")
    ]
    same = sum(one == other for one, other in zip(*said, strict=True))
    assert (found["texts"], found["same"], found["empty"]) == (19, same, 1)
    assert len(found["rows"]) == 19 - same and {row["number"] for row in found["rows"]} <= set(range(2, 21))
    told = worked(client, "file", DENSE, given(home, "number"), file=file)
    assert told["state"] == "failed" and "answer something else" in told["line"]
    table = {"name": "t.csv", "content": f"id,text,{EVIL}\n1,good w1,x\n", "columns": f"text, {EVIL}"}
    assert worked(client, "file", file=table)["found"]["texts"] == 1


def test_two_races_are_one_after_the_other_and_can_be_stopped(client: TestClient) -> None:
    numbers = [client.post("/live/work", json=asked("race", texts=2000, batch=1, memory=0)).json() for _ in range(2)]
    second = client.get("/live/work", params=numbers[1]).json()
    assert second["state"] == "waiting" and second["line"].startswith("It waits: a race is at work")
    for number in numbers:
        assert client.post("/live/stop", json=number).status_code == 200
    end = time.monotonic() + LIMIT_S
    while {client.get("/live/work", params=number).json()["state"] for number in numbers} != {"stopped"}:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert worked(client, "answers")["state"] == "done"


def test_inside_are_tokens_their_parts_and_the_heads_that_are_left(client: TestClient) -> None:
    left, right = worked(client, "inside", text="good nothing", pair="w1")["found"]["sides"]
    assert left["tokens"] == ["[CLS]", "good", "[UNK]", "[SEP]", "w1", "[SEP]"] == right["tokens"]
    assert len(left["parts"]) == 6 and any(left["parts"]) and left["said"] in ("negative", "positive")
    assert [layer["layer"] for layer in left["layers"]] == [1, 2, 3] and len(right["layers"]) == 2
    for layer in left["layers"]:
        assert layer["heads"] == [1, 2, 3, 4]
        assert [sum(paid) for paid in layer["paid"]] == pytest.approx([1.0] * 4, abs=1e-3)
    long = worked(client, "inside", text="w1 " * 500)["found"]["sides"][0]
    assert len(long["tokens"]) == long["cut"] == min(64, MOST_TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_parts_are_first_order(family: str, tmp_path: Path) -> None:
    """Gradient times input is the slope along what the first layer is given: by differences, in float64."""
    opened = Microscope()._opened(saved(tiny_model(family, num_labels=2), tmp_path))
    opened.inference.model.double()
    found = seen(opened, None, "good w1 w2", None)
    layer = opened.inference.model.get_submodule(layout_of(opened.inference.model).layers[0].path)

    def margin(token: int, scale: float) -> float:
        scales = torch.ones(1, 5, 1)
        scales[0, token] = scale
        hook = layer.register_forward_pre_hook(lambda module, inputs: (scales * inputs[0], *inputs[1:]))
        columns, _ = opened.inference.reader.read(["good w1 w2"])
        batch = opened.inference.collate(rows_of(columns, [0]))
        with torch.inference_mode():
            logits = opened.kind.read(opened.inference.model, batch, batch)[0]
        hook.remove()
        return float(logits[opened.labels.index(found["said"])] - logits.mean())

    slopes = [(margin(token, 1 + 1e-3) - margin(token, 1 - 1e-3)) / 2e-3 for token in range(5)]
    assert found["parts"] == pytest.approx(slopes, rel=1e-2, abs=1e-4) and max(map(abs, slopes)) > 1e-3
    heads = opened.inference.model.config.num_attention_heads
    assert [len(layer["paid"]) for layer in found["layers"]] == [heads] * 3
    assert [layer["heads"] for layer in found["layers"]] == [list(range(1, heads + 1))] * 3


def saved(model: PreTrainedModel, folder: Path) -> AskedModel:
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={word: place for place, word in enumerate((*SPECIAL, *WORDS))}).save_pretrained(folder)
    return AskedModel("k", "n", str(folder))


def test_heads_and_layers_keep_the_numbers_that_they_had(tmp_path: Path) -> None:
    kept = {
        "layer.0.heads": torch.tensor([True, False, False, True]),
        "layer.2.heads": torch.zeros(4, dtype=torch.bool),
    }
    model = saved(shrink(tiny_model("bert", num_labels=2), kept, drop_layers=[1]), tmp_path)
    shape = full_record().models[0].shape.model_copy(update={"kept_heads": ((0, 3), (), ())})
    opened = Microscope()._opened(model)

    def told(shape: Shape | None) -> list[tuple[int, list[int]]]:
        return [(layer["layer"], layer["heads"]) for layer in seen(opened, shape, "good", None)["layers"]]

    assert told(shape) == [(1, [1, 4]), (3, [])]
    # Without a record, or with one of other heads, they are counted.
    assert told(None) == told(full_record().models[0].shape) == [(1, [1, 2]), (3, [])]


def test_only_so_many_models_stay_open(home: Path) -> None:
    pool = Pool()
    model = AskedModel("k", "n", str(home / "number"))
    first = pool.open(Side(model, WayToRun("eager", 1)), 1)
    for batch in range(2, MOST_OPEN + 1):
        pool.open(Side(model, WayToRun("eager", 1)), batch)
    assert pool.open(Side(model, WayToRun("eager", 1)), 1) is first and len(pool._open) == MOST_OPEN
    pool.open(Side(model, WayToRun("eager", 1)), 99)
    assert pool.open(Side(model, WayToRun("eager", 1)), 1) is first and len(pool._open) == MOST_OPEN
    pool.open(Side(model, WayToRun("eager", 1)), 2)
    assert len(pool._open) == MOST_OPEN


def test_a_model_that_was_made_again_is_opened_again(tmp_path: Path) -> None:
    save_model(tiny_model("bert", num_labels=2), load_tokenizer(save_tiny(tmp_path / "words")), tmp_path / "model")
    pool, model = Pool(), AskedModel("k", "n", str(tmp_path / "model"))
    first = pool.open(Side(model, WayToRun("eager", 1)), 1)
    save_model(tiny_model("bert", num_labels=2, seed=1), load_tokenizer(tmp_path / "words"), tmp_path / "model")
    second = pool.open(Side(model, WayToRun("eager", 1)), 1)
    assert second is not first and not np.allclose(first.outputs(["good"]), second.outputs(["good"]))


def test_the_page_has_the_part_and_says_what_is_missing(home: Path, tmp_path: Path) -> None:
    page = client_of(home, "number").get("/").text
    told = Reader(page).text
    assert "Ask two models" in told and "Race" in told and "assets/live.js" in page
    several(tmp_path / "runs")
    bare = client_of(tmp_path).get("/").text
    assert "No model can be asked" in Reader(bare).text and "Start the race" not in bare
    alone = client_of(home, "number", runs="").get("/").text
    assert 'id="tradeoff" hidden' in alone and "Start the race" in alone
    page_file = tmp_path / "out" / "index.html"
    said = run_cli("explore", home / "runs", home / "number", "-o", tmp_path / "out")
    assert said.exit_code == 0 and "Left out: " in said.stderr and "number" in said.stderr
    assert "Ask two models" not in page_file.read_text(encoding="utf-8")
    assert not list((tmp_path / "out" / "assets").glob("live*"))
    assert_refused(run_cli("explore", home / "number", "-o", tmp_path / "none"), ["No run given has a model to show"])


@pytest.mark.process
def test_exported_folders_answer_without_torch_and_others_say_that_it_is_missing(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = exported(tmp_path, "small")
    code = """
import sys, time
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
real = importlib.util.find_spec
import sparsebert.live.catalogue as catalogue
catalogue.find_spec = lambda name: None if name == "torch" else real(name)
from starlette.testclient import TestClient
from sparsebert.explorer.app import Desk, application
from sparsebert.explorer.library import Library
from sparsebert.live.annex import live_annex
client = TestClient(application(Desk(Library([]), live_annex(sys.argv[1:])), None), base_url="http://127.0.0.1")
left, right = ({"key": "model: " + name, "runtime": "auto"} for name in sys.argv[1:])
print([one["name"] for one in client.get("/live/model", params={"key": left["key"]}).json()["runtimes"]])
print(client.get("/live/model", params={"key": right["key"]}).json()["problem"])
for what in ("answers", "inside"):
    asked = {"what": what, "left": left, "right": right, "threads": 1, "text": "good"}
    number = client.post("/live/work", json=asked).json()
    while (told := client.get("/live/work", params=number).json())["state"] in ("waiting", "running"):
        time.sleep(0.01)
    print([sorted(one) for one in told["found"]["sides"]], [one.get("problem") for one in told["found"]["sides"]])
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(home / "number")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runtimes, problem, answers, inside, loaded = done.stdout.splitlines()
    assert runtimes == "['auto', 'onnx']" and "torch, which is not installed" in problem
    assert "'labels'" in answers and "torch, which is not installed" in answers
    assert "a program does not show what happens inside it" in inside and loaded == "False"
