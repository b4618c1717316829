"""`sparsebert serve`: a real server, real clients, and what they send by mistake or on purpose."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import Running, exported, serving, wait_for
from sparsebert import Predictor
from tiny_run import WORDS, assert_refused, run_cli

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.process
CLIENTS, TOKEN, LONG = 32, "a-secret-of-tests", "bad " * 90
DRAW = random.Random(0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, `dense` and `small`, that answer otherwise."""
    folder = tmp_path_factory.mktemp("serve")
    exported(folder, "dense", id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    exported(folder, "small", hidden_size=24, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Running]:
    arguments = (home / "dense", f"4x={home / 'small'}", "--threads", 1, "--max-body-kb", 64, "--max-chars", 1000)
    with serving(home / "server", *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def tight(home: Path) -> Iterator[Running]:
    """With a token, room for four texts, and little patience."""
    limits = ("--queue", 4, "--max-texts", 4, "--timeout", 3, "--max-batch", 2)
    with serving(home / "tight", home / "dense", *limits, token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def predictors(home: Path) -> dict[str, Predictor]:
    return {name: Predictor(home / folder, "onnx") for name, folder in (("dense", "dense"), ("4x", "small"))}


def same(found: Any, expected: Any) -> bool:
    """Rankings alike: computed in other company, the last digits may differ."""
    plain = [{one["label"]: one["score"] for one in ranking} for ranking in (found, expected)]
    return plain[0] == pytest.approx(plain[1], abs=1e-5)


@pytest.mark.parametrize("model", ["", "dense", "4x"])
@pytest.mark.parametrize("top_k", [1, 2, None])
@pytest.mark.parametrize(
    "texts",
    [
        "good",
        ["good", "bad w1 w2"],
        ["good", "", " \n"],
        {"text": "good", "text_pair": "bad"},
        {"text": "", "text_pair": "bad"},
        [{"text": "w3", "text_pair": LONG}] * 2,
    ],
)
def test_answers_are_those_of_the_predictor(
    server: Running, predictors: dict[str, Predictor], model: str, top_k: int | None, texts: Any
):
    several = texts if isinstance(texts, list) else [texts]
    answer = server.predict(texts, model, top_k=top_k)
    assert answer.status_code == 200 and answer.json()["model"] == (model or "dense")
    expected = predictors[model or "dense"](several, top_k=top_k)
    for found, wanted in zip(answer.json()["predictions"], expected, strict=True):
        assert same([found], [wanted]) if top_k == 1 else same(found, wanted)


def test_an_answer_says_which_texts_were_cut(server: Running):
    assert server.predict(["good", LONG, "bad", LONG]).json()["cut"] == [2, 4]
    assert server.predict("good").json()["cut"] == []


async def _good(client: httpx.AsyncClient, predictors: dict[str, list[Any]]) -> None:
    """Random texts of one of the models: the answers are those that it gives alone."""
    model = DRAW.choice(list(predictors))
    rows = [DRAW.randrange(len(ASKED)) for _ in range(DRAW.choice([1, 1, 2, 7]))]
    answer = await client.post(f"/predict/{model}", json={"texts": [ASKED[row] for row in rows], "top_k": None})
    assert answer.status_code == 200, answer.text
    for found, row in zip(answer.json()["predictions"], rows, strict=True):
        assert same(found, predictors[model][row])


async def _wrong(client: httpx.AsyncClient, _: Any) -> None:
    body, status = DRAW.choice([(b'{"texts": [', 400), (b'{"texts": 7}', 422), (b"\xff\xfe", 400), (b"", 400)])
    assert (await client.post("/predict", content=body)).status_code == status


async def _oversized(client: httpx.AsyncClient, _: Any) -> None:
    assert (await client.post("/predict", content=b"x" * 2**18)).status_code == 413
    assert (await client.post("/predict", json={"texts": "x" * 1001})).status_code == 422


async def _aborted(client: httpx.AsyncClient, _: Any) -> None:
    _, writer = await _connected(client, b'{"texts": ["good", "bad"]}')
    writer.transport.abort()


async def _connected(
    client: httpx.AsyncClient, body: bytes, sent: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the headers and so many bytes of the body have been sent, none = all."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:sent])
    await writer.drain()
    return reader, writer


ASKED = [" ".join(DRAW.choices(WORDS, k=DRAW.randint(1, 40))) for _ in range(50)]


def test_under_many_clients_each_has_its_own_answers(server: Running, predictors: dict[str, Predictor]):
    expected = {name: predictor(ASKED, top_k=None) for name, predictor in predictors.items()}
    kinds = [*[_good] * 6, _wrong, _oversized, _aborted]

    async def one_client(client: httpx.AsyncClient) -> None:
        for _ in range(8):
            await DRAW.choice(kinds)(client, expected)

    async def all_clients() -> bytes:
        async with httpx.AsyncClient(base_url=server.client.base_url, timeout=120, limits=httpx.Limits()) as client:
            slow = b'{"texts": "good"}'
            reader, writer = await _connected(client, slow, sent=5)
            await asyncio.gather(*(one_client(client) for _ in range(CLIENTS)))
            # It began before all others, and its body ends after them.
            writer.write(slow[5:])
            answer = await reader.readuntil(b"\r\n")
            writer.close()
            return answer

    assert asyncio.run(all_clients()) == b"HTTP/1.1 200 OK\r\n"
    statuses = {line["status"] for line in server.lines() if line["message"] == "request"}
    assert {200, 400, 413, 422} <= statuses and not {one for one in statuses if one >= 500 and one != 503}


def test_requests_that_wait_go_together(server: Running):
    before = {name: server.metric(f"sparsebert_batch_texts_{name}", model="dense") for name in ("count", "sum")}
    with ThreadPoolExecutor(7) as threads:
        server.hold.touch()
        first = threads.submit(server.predict, "good")
        batches = before["count"] + 1
        wait_for(lambda: server.metric("sparsebert_batch_texts_count", model="dense") == batches, server.process)
        others = [threads.submit(server.predict, ["bad"] * 2) for _ in range(5)]
        wait_for(lambda: server.metric("sparsebert_queue_texts", model="dense") == 10, server.process)
        server.hold.unlink()
        assert {one.result().status_code for one in (first, *others)} == {200}
    assert server.metric("sparsebert_batch_texts_count", model="dense") == batches + 1
    assert server.metric("sparsebert_batch_texts_sum", model="dense") == before["sum"] + 11


def test_a_client_that_leaves_gives_its_place_to_others(server: Running):
    def gone() -> float:
        return server.metric("sparsebert_requests_total", model="dense", route="/predict", status="499")

    before = gone()
    server.hold.touch()
    body = b'{"texts": "good"}'
    request = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    batches = server.metric("sparsebert_batch_texts_count", model="dense")
    with _sent(server, request):
        wait_for(lambda: server.metric("sparsebert_batch_texts_count", model="dense") == batches + 1, server.process)
        with _sent(server, request):
            wait_for(lambda: server.metric("sparsebert_queue_texts", model="dense") == 1, server.process)
    wait_for(lambda: gone() == before + 2, server.process)
    assert server.metric("sparsebert_queue_texts", model="dense") == 0
    server.hold.unlink()


def _sent(server: Running, rest: bytes) -> socket.socket:
    """A connection on which a request has been sent that ends so."""
    connection = socket.create_connection((server.client.base_url.host, server.client.base_url.port or 80))
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + rest)
    return connection


def test_models_are_listed_and_counted_by_name(server: Running):
    assert [(one["name"], one["runtime"], one["labels"]) for one in server.client.get("/models").json()] == [
        ("dense", "onnx", ["no", "yes"]),
        ("4x", "onnx", ["no", "yes"]),
    ]
    labels = {"model": "4x", "route": "/predict/{model}", "status": "200"}
    requests, texts = (
        server.metric("sparsebert_requests_total", **labels),
        server.metric("sparsebert_texts_total", model="4x"),
    )
    server.predict(["good", "bad", "w1"], "4x")
    assert server.metric("sparsebert_requests_total", **labels) == requests + 1
    assert server.metric("sparsebert_texts_total", model="4x") == texts + 3
    assert server.metric("sparsebert_request_seconds_bucket", le="+Inf", model="4x", route="/predict/{model}") >= 1
    unknown = server.predict("good", "8x")
    assert unknown.status_code == 404 and unknown.json() == {"error": "No such model; allowed: dense, 4x"}


def test_requests_have_ids_in_the_log_and_texts_are_not_there(server: Running):
    answer = server.client.post("/predict", json={"texts": "unheardof w1"}, headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    line = server.line_of("mine-1")
    assert (line["route"], line["model"], line["texts"], line["status"]) == ("/predict", "dense", 1, 200)
    assert line["ms"] > 0 and "unheardof" not in server.log.read_text(encoding="utf-8")
    odd = server.client.get("/health", headers={"X-Request-ID": 'x"} y'}).headers["X-Request-ID"]
    assert len(odd) == 32 and odd.isalnum()


def test_the_page_of_the_interface_loads_nothing(server: Running):
    page, interface = server.client.get("/docs"), server.client.get("/openapi.json").json()
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "POST /predict/{model}" in page.text and "text_pair" in page.text
    schema = interface["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Question"}
    assert {"Question", "TextPair", "Reply", "Problem"} <= interface["components"]["schemas"].keys()


def test_an_answer_does_not_wait_for_the_network(server: Running):
    """Of an answer in two packets the second came 40 ms later."""
    assert min(server.client.get("/health").elapsed.total_seconds() for _ in range(30)) < 0.03


def test_other_addresses_and_methods_are_refused_in_json(server: Running):
    for answer, status in ((server.client.get("/nothing"), 404), (server.client.get("/predict"), 405)):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_the_process_has_no_torch(server: Running):
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in libraries
    assert not any(name in libraries for name in ("/torch/", "/scipy/", "/pyarrow/", "/safetensors/"))


def test_a_full_queue_says_so_and_when_to_come_again(tight: Running):
    tight.hold.touch()
    with ThreadPoolExecutor(3) as threads:
        held = [threads.submit(tight.predict, ["good"] * 2)]
        wait_for(lambda: tight.metric("sparsebert_batch_texts_count", model="dense") >= 1, tight.process)
        held.append(threads.submit(tight.predict, ["good"] * 3))
        wait_for(lambda: tight.metric("sparsebert_queue_texts", model="dense") == 3, tight.process)
        full = tight.predict(["bad"] * 2)
        assert full.status_code == 503 and full.headers["Retry-After"] == "1"
        assert full.json() == {"error": "The queue is full: 3 texts wait"}
        tight.hold.unlink()
        assert [one.result().status_code for one in held] == [200, 200]


def test_who_waits_too_long_is_told_and_leaves_the_queue(tight: Running):
    tight.hold.touch()
    late = tight.predict("good")
    assert late.status_code == 503 and late.headers["Retry-After"] == "1"
    assert late.json() == {"error": "The answer was not ready in time"}
    assert tight.metric("sparsebert_queue_texts", model="dense") == 0
    tight.hold.unlink()
    assert tight.predict("good").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(tight: Running):
    with _sent(tight, f"Authorization: Bearer {TOKEN}\r\nContent-Length: 99\r\n\r\n{{".encode()) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_the_token_is_asked_for_everywhere_but_where_it_is_watched(tight: Running):
    paths = ("/models", "/metrics", "/docs", "/openapi.json", "/nothing")
    for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
        with httpx.Client(base_url=tight.client.base_url, headers=given) as stranger:
            answers = [stranger.get(path) for path in paths] + [stranger.post("/predict", json={"texts": "good"})]
            assert {one.status_code for one in answers} == {401}
            assert answers[0].headers["WWW-Authenticate"] == "Bearer" and TOKEN not in answers[0].text
            assert [stranger.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
    assert tight.client.get("/models").status_code == 200
    assert TOKEN not in tight.log.read_text(encoding="utf-8")


def test_a_port_that_is_in_use_is_one_line(server: Running, home: Path):
    port = server.client.base_url.port
    said = run_cli("serve", home / "dense", "--port", port)
    assert_refused(said, [f"127.0.0.1:{port} cannot be listened at: address already in use", "--port"])


def test_limits_of_a_request_are_named(tight: Running):
    answer = tight.predict(["good"] * 5)
    assert tight.line_of(answer.headers["X-Request-ID"])["status"] == 422
    assert (answer.status_code, answer.json()) == (422, {"error": "texts: got 5; allowed are 1 to 4 in a request"})
