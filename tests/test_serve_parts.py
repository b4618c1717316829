"""The parts of a server alone: what a body may hold, who waits for whom, and what gets into the log."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparsebert.errors import UserError
from sparsebert.serve.batcher import Batcher, Rankings
from sparsebert.serve.journal import JsonLines
from sparsebert.serve.limits import Limits, RefusedError
from sparsebert.serve.question import Asked, read_question

FORMS = 'texts: allowed is a text, a pair {"text": ..., "text_pair": ...}, or a list of texts or of pairs, not both'
OBJECT = "The body has to be an object; allowed keys: texts, top_k"
NO_JSON = "The body is not JSON in UTF-8: "


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, NO_JSON),
        (b'{"texts": "a"', 400, NO_JSON),
        (b'{"texts": "\xff"}', 400, NO_JSON),
        (b'{"texts": "\\ud800"}', 400, NO_JSON),
        (b"[" * 10_000, 400, NO_JSON),
        (b"[]", 422, OBJECT),
        (b'{"texts": "a", "model": "b"}', 422, OBJECT),
        (b"{}", 422, FORMS),
        (b'{"texts": null}', 422, FORMS),
        (b'{"texts": ["a", 3]}', 422, FORMS),
        (b'{"texts": ["a", {"text": "a", "text_pair": "b"}]}', 422, FORMS),
        (b'{"texts": {"text": "a"}}', 422, FORMS),
        (b'{"texts": {"text": "a", "other": "b"}}', 422, FORMS),
        (b'{"texts": []}', 422, "texts: got 0; allowed are 1 to 3 in a request"),
        (b'{"texts": ["a", "b", "c", "d"]}', 422, "texts: got 4; allowed are 1 to 3 in a request"),
        (b'{"texts": ["a", "bcdefg"]}', 422, "texts: text 2 has 6 characters; allowed are 5"),
        (b'{"texts": "a", "top_k": 0}', 422, "top_k: Input should be greater than or equal to 1"),
        (b'{"texts": "a", "top_k": true}', 422, "top_k: Input should be a valid integer"),
    ],
)
def test_what_a_body_may_not_be_is_said_in_one_line(body: bytes, status: int, why: str):
    with pytest.raises(RefusedError) as refused:
        read_question(body, Limits(texts=3, letters=5))
    assert refused.value.status == status and refused.value.why.startswith(why)
    assert len(refused.value.why.splitlines()) == 1


def test_a_body_that_is_wrong_in_a_million_places_is_refused_at_once():
    """It took pydantic more than half a minute to say so of each."""
    start = time.perf_counter()
    for item in (b"1", b"{}", b'""'):
        with pytest.raises(RefusedError, match="allowed are 1 to 256"):
            read_question(b'{"texts": [' + b",".join([item] * 1_000_000) + b"]}", Limits())
    assert time.perf_counter() - start < 6


def test_bodies_are_read():
    assert read_question(b'{"texts": "a"}', Limits()) == Asked(["a"], None, 1)
    assert read_question(b'{"texts": ["a", "b"], "top_k": null}', Limits()) == Asked(["a", "b"], None, None)
    assert read_question(b'{"texts": {"text": "a", "text_pair": "b"}}', Limits()) == Asked(["a"], ["b"], 1)


class Recorder:
    """A model that says back its texts, and remembers which came together; `bad` fails."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def rank(self, first: Sequence[str], second: Sequence[str] | None) -> Rankings:
        self.batches.append(list(first))
        if "bad" in first:
            raise UserError("It cannot be read")
        return [([{"label": one}], second is not None) for one in first]


def batched(limits: Limits, client: Callable[[Batcher, Recorder], Awaitable[None]]) -> list[list[str]]:
    """The batches of a client that ends within the time of the test."""
    model = Recorder()

    async def run() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.rank, thread, limits, lambda texts: None)
            worker = asyncio.create_task(batcher.work())
            async with asyncio.timeout(30):
                await client(batcher, model)
            worker.cancel()

    asyncio.run(run())
    return model.batches


def ask(batcher: Batcher, *texts: str, pairs: bool = False) -> asyncio.Future[Rankings]:
    return batcher.put(Asked(texts, texts if pairs else None, 1)).answer


FOR_EVER = Limits(wait_ms=3_600_000, batch=4)


def test_who_is_alone_does_not_wait():
    async def client(batcher: Batcher, _: Recorder) -> None:
        for text in "abc":
            assert await ask(batcher, text) == [([{"label": text}], False)]

    assert batched(FOR_EVER, client) == [["a"], ["b"], ["c"]]


def test_after_a_batch_of_several_as_many_are_waited_for():
    async def client(batcher: Batcher, model: Recorder) -> None:
        await asyncio.gather(ask(batcher, "a"), ask(batcher, "b"))
        alone = ask(batcher, "c")
        await asyncio.wait([alone], timeout=0.05)
        assert not alone.done() and model.batches == [["a", "b"]]
        await asyncio.gather(alone, ask(batcher, "d"))
        # A batch that is full goes, however many requests it is made of.
        await ask(batcher, "e", "f", "g", "h")

    assert batched(FOR_EVER, client) == [["a", "b"], ["c", "d"], ["e", "f", "g", "h"]]


def test_after_a_pause_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    async def client(batcher: Batcher, _: Recorder) -> None:
        await asyncio.gather(ask(batcher, "a"), ask(batcher, "b"))
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda now=loop.time: now() + 15)
        alone = ask(batcher, "c")
        await asyncio.wait([alone], timeout=5)
        assert alone.done()

    assert batched(Limits(wait_ms=10_000), client) == [["a", "b"], ["c"]]


def test_nobody_waits_longer_than_is_allowed():
    async def client(batcher: Batcher, _: Recorder) -> None:
        await asyncio.gather(ask(batcher, "a"), ask(batcher, "b"))
        await ask(batcher, "c")

    assert batched(Limits(wait_ms=20), client) == [["a", "b"], ["c"]]


def test_a_batch_takes_no_more_texts_than_it_may_and_no_request_apart():
    async def client(batcher: Batcher, _: Recorder) -> None:
        sent = [ask(batcher, *texts) for texts in ("ab", "c", "def", "ghijk", "l")]
        await asyncio.gather(*sent)

    assert batched(Limits(wait_ms=0, batch=4), client) == [
        ["a", "b", "c"],
        ["d", "e", "f"],
        ["g", "h", "i", "j", "k"],
        ["l"],
    ]


def test_pairs_and_texts_go_through_apart_and_each_gets_its_own():
    async def client(batcher: Batcher, _: Recorder) -> None:
        found = await asyncio.gather(ask(batcher, "a"), ask(batcher, "b", "c", pairs=True), ask(batcher, "d"))
        assert [[ranking[0]["label"] for ranking, _ in one] for one in found] == [["a"], ["b", "c"], ["d"]]
        assert [[paired for _, paired in one] for one in found] == [[False], [True, True], [False]]

    assert batched(Limits(), client) == [["a", "d"], ["b", "c"]]


def test_a_text_that_fails_fails_its_own_request_alone():
    async def client(batcher: Batcher, _: Recorder) -> None:
        good, bad, other = ask(batcher, "a"), ask(batcher, "b", "bad"), ask(batcher, "c")
        assert [ranking[0]["label"] for ranking, _ in await good + await other] == ["a", "c"]
        with pytest.raises(UserError, match="cannot be read"):
            await bad

    assert batched(Limits(), client) == [["a", "b", "bad", "c"], ["a"], ["b", "bad"], ["c"]]


def test_the_queue_is_bounded_and_who_leaves_makes_room():
    async def client(batcher: Batcher, _: Recorder) -> None:
        first = batcher.put(Asked("abc", None, 1))
        with pytest.raises(RefusedError, match="queue is full: 3 texts wait") as refused:
            ask(batcher, "d", "e")
        assert refused.value.status == 503 and refused.value.headers == {"Retry-After": "1"}
        batcher.withdraw(first)
        assert batcher.texts == 0
        await ask(batcher, "d", "e")

    assert batched(Limits(queue=4, texts=4), client) == [["d", "e"]]


def test_the_log_holds_the_place_of_an_error_but_not_its_words():
    try:
        raise ValueError("the client's secret text")
    except ValueError:
        record = logging.LogRecord("uvicorn", logging.ERROR, __file__, 1, "It failed", (), sys.exc_info())
    said = JsonLines().format(record)
    assert json.loads(said)["error"] == "ValueError" and "secret" not in said
    assert json.loads(said)["at"][0].startswith(__file__) and json.loads(said)["message"] == "It failed"
