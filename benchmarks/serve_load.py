"""Does a server stay up under bad company, with its memory flat and every answer right?

    python benchmarks/serve_load.py runs/sst2/4x-onnx --runtime onnx --minutes 10 --clients 16

So many clients ask `sparsebert serve` without a pause. Most requests are good, of one to seven texts; the others are
malformed, of wrong types, too large, sent slowly, or left by their client before the answer. Each good answer is
compared with the predictor's, a text alone. A row is a minute; the last line compares its resident memory with that of
the first. Ends with exit code 1 for a wrong answer, a 5xx other than 503, or a status that was not to be expected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from harness import options_of, print_table, with_threads, write
from serve import ANSWER_S, percentiles, questions, running
from sparsebert.deployment.predictor import Predictor
from sparsebert.processes import status_mb

CLOSE, SLOW_S = 1e-3, 0.5
BROKEN = ((b'{"texts": [', 400), (b'{"texts": 7}', 422), (b"\xff\xfe", 400), (b"", 400), (b"x" * 5_000_000, 413))
KINDS = {"good": 0.8, "broken": 0.1, "slow": 0.05, "aborted": 0.05}


@dataclass
class Minute:
    """What happened in one: statuses, milliseconds of good answers, megabytes of the server, and what was wrong."""

    statuses: Counter[int] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    aborted: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Load:
    """The texts that are asked, their answers, where the server is, and the minutes so far."""

    url: httpx.URL
    texts: Sequence[str]
    expected: Sequence[Any]
    start: float
    minutes: list[Minute]
    draw: random.Random

    @property
    def now(self) -> Minute:
        place = int((time.perf_counter() - self.start) / 60)
        return self.minutes[min(place, len(self.minutes) - 1)]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    texts = [json.loads(body)["texts"] for body in questions(Path(options.model), options.words)]
    expected: Any = Predictor(options.model, options.runtime, batch=1, threads=options.threads)(texts, top_k=None)
    minutes = [Minute() for _ in range(max(1, round(options.minutes)))]
    with running(options, options.model, ()) as server:
        load = Load(httpx.URL(server.url), texts, expected, time.perf_counter(), minutes, random.Random(0))
        asyncio.run(all_clients(load, server.pid, options))
    rows = [row_of(number, minute) for number, minute in enumerate(minutes, 1)]
    print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    write(options, [{"server": options.model, **row} for row in rows], options.threads)
    grown = rows[-1]["resident_mb"] / rows[0]["resident_mb"] - 1
    print(f"\nresident memory of the last minute over that of the first: {grown:+.1%}")
    wrong = [words for minute in minutes for words in minute.wrong]
    if wrong:
        raise SystemExit(f"{len(wrong)} times wrong, first: {wrong[0]}")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, words=20, clients=16), default=1)
    parser.add_argument("model", help="folder that `sparsebert serve` takes")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runtime", default="onnx", help="of equal answers in batches of any size, so not onnx-int8")
    return parser.parse_args(argv)


async def all_clients(load: Load, pid: int, options: argparse.Namespace) -> None:
    end = load.start + 60 * options.minutes
    most = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    async def one(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < end:
            kind = load.draw.choices(list(KINDS), list(KINDS.values()))[0]
            await ASK[kind](client, load)

    async def watch() -> None:
        while time.perf_counter() < end:
            load.now.resident_mb.append(status_mb("VmRSS", pid))
            await asyncio.sleep(0.5)

    async with httpx.AsyncClient(base_url=load.url, limits=most, timeout=ANSWER_S) as client:
        await asyncio.gather(watch(), *(one(client) for _ in range(options.clients)))


async def good(client: httpx.AsyncClient, load: Load) -> None:
    rows = [load.draw.randrange(len(load.texts)) for _ in range(load.draw.randint(1, 7))]
    start, minute = time.perf_counter(), load.now
    answer = await client.post("/predict", json={"texts": [load.texts[row] for row in rows], "top_k": None})
    minute.statuses[answer.status_code] += 1
    if answer.status_code == 503:
        return
    if answer.status_code != 200:
        minute.wrong.append(f"{answer.status_code}: {answer.text}")
        return
    minute.ms.append(1000 * (time.perf_counter() - start))
    for row, found in zip(rows, answer.json()["predictions"], strict=True):
        if not alike(found, load.expected[row]):
            minute.wrong.append(f"{load.texts[row]!r}: {found} in place of {load.expected[row]}")


async def broken(client: httpx.AsyncClient, load: Load) -> None:
    body, status = load.draw.choice(BROKEN)
    answer = await client.post("/predict", content=body)
    load.now.statuses[answer.status_code] += 1
    if answer.status_code not in (status, 503):
        load.now.wrong.append(f"{answer.status_code} in place of {status}: {answer.text}")


async def slow(client: httpx.AsyncClient, load: Load) -> None:
    """The body comes in two parts."""
    body = b'{"texts": "slow but good"}'
    reader, writer = await begun(load, body, sent=5)
    await asyncio.sleep(SLOW_S)
    writer.write(body[5:])
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    writer.close()
    load.now.statuses[status] += 1
    if status not in (200, 503):
        load.now.wrong.append(f"{status} for a slow client")


async def aborted(client: httpx.AsyncClient, load: Load) -> None:
    """The client leaves once its request is sent."""
    body = json.dumps({"texts": load.texts[:7]}).encode()
    _, writer = await begun(load, body, sent=len(body))
    writer.transport.abort()
    load.now.aborted += 1


ASK = {"good": good, "broken": broken, "slow": slow, "aborted": aborted}


async def begun(load: Load, body: bytes, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the headers are sent, and so many bytes of the body."""
    reader, writer = await asyncio.open_connection(load.url.host, load.url.port)
    writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:sent])
    await writer.drain()
    return reader, writer


def alike(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    scores = {one["label"]: one["score"] for one in expected}
    return len(found) == len(scores) and all(abs(one["score"] - scores[one["label"]]) < CLOSE for one in found)


def row_of(number: int, minute: Minute) -> dict[str, Any]:
    statuses = {f"status_{status}": minute.statuses[status] for status in (200, 400, 413, 422, 503)}
    known = sum(statuses.values())
    return {
        "minute": number,
        **statuses,
        "other": sum(minute.statuses.values()) - known,
        "aborted": minute.aborted,
        "wrong": len(minute.wrong),
        **percentiles(minute.ms),
        "resident_mb": round(statistics.median(minute.resident_mb), 1),
    }


if __name__ == "__main__":
    main()
