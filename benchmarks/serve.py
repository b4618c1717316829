"""How many requests does a server answer, and how long do they take: in dynamic batches, and one at a time?

    python benchmarks/serve.py runs/sst2/dense-onnx runs/sst2/4x-onnx --clients 1 8 32 --rate 50 200

For each folder two servers run, `sparsebert serve` as it is and with `--max-batch 1`, and are asked in turn, A B A B.
With --clients, so many ask again as soon as they are answered (closed loop); with --rate, so many requests a second are
sent whether or not the server keeps up (open loop), and times count from when a request was due. What is refused as the
queue is full is counted apart. Client and servers share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from harness import options_of, print_table, with_threads, write
from sparsebert.data.file_tokenizer import FILE

VARIANTS = {"dynamic batches": (), "one at a time": ("--max-batch", "1")}
START_S, ANSWER_S = 300.0, 120.0
HEAD = b"POST /predict HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass
class Load:
    """What came of the requests of one variant at one load: milliseconds of those answered, and the others."""

    ms: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Server:
    """Where a server listens, and its process."""

    url: str
    pid: int


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    rows = [row for model in options.models for row in measured(options, model)]
    shown = ("model", "load", "server", "requests_per_s", "p50_ms", "p99_ms", "refused")
    print_table(shown, [[str(row[name]) for name in shown] for row in rows])
    write(options, rows, options.threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, rounds=3, words=20), default=1)
    parser.add_argument("models", nargs="+", help="folders that `sparsebert serve` takes")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32], help="of closed loops")
    parser.add_argument("--rate", type=float, nargs="*", default=[], help="requests a second of open loops")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load in each round; default 10")
    parser.add_argument("--runtime", default="auto")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace, model: str) -> list[dict[str, object]]:
    """A row for each load and variant, of all rounds together."""
    loads: list[tuple[str, float]] = [("clients", one) for one in options.clients]
    loads += [("requests a second", one) for one in options.rate]
    found: dict[tuple[str, str], Load] = defaultdict(Load)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(options, model, more)) for name, more in VARIANTS.items()}
        bodies = questions(Path(model), options.words)
        for kind, level in loads:
            for _ in range(options.rounds):
                for name, server in servers.items():
                    asyncio.run(ask(server.url, bodies, kind, level, options.seconds, found[f"{level:g} {kind}", name]))
    return [
        {
            "model": model,
            "load": load,
            "server": name,
            "requests_per_s": round(len(one.ms) / one.seconds, 1),
            **percentiles(one.ms),
            "refused": one.refused,
        }
        for (load, name), one in found.items()
    ]


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """Half of the answers came as fast or faster, and 99 of 100."""
    return {"p50_ms": round(statistics.median(ms), 2), "p99_ms": round(sorted(ms)[int(0.99 * len(ms))], 2)}


def questions(folder: Path, words: int) -> list[bytes]:
    """Bodies of one text each, of 1 to twice as many words of the model's own vocabulary, the same every time."""
    draw = random.Random(0)
    known = json.loads((folder / FILE).read_text(encoding="utf-8"))["model"]["vocab"]
    vocabulary = sorted(word for word in known if isinstance(word, str) and word.isalpha()) or ["good"]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(1, 2 * words))) for _ in range(200)]
    return [json.dumps({"texts": text}).encode() for text in texts]


@contextmanager
def running(options: argparse.Namespace, model: str, more: Sequence[str]) -> Iterator[Server]:
    """A server that is ready; it is ended afterwards."""
    command = [sys.executable, "-m", "sparsebert", "serve", f"model={model}", "--port", "0", *more]
    command += ["--runtime", options.runtime, "--threads", str(options.threads)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield Server(ready(process, log.fileno()), process.pid)
        finally:
            process.terminate()


def ready(process: subprocess.Popen[bytes], log: int) -> str:
    end = time.monotonic() + START_S
    said = Path(f"/proc/self/fd/{log}")
    while time.monotonic() < end:
        lines = said.read_bytes().decode().splitlines()
        if process.poll() is not None:
            raise RuntimeError(lines[-1] if lines else "the server has ended")
        events = [json.loads(line) for line in lines if line.endswith("}")]
        if any(event["message"] == "ready" for event in events):
            return f"http://127.0.0.1:{events[0]['port']}"
        time.sleep(0.05)
    raise RuntimeError("the server was not ready in time")


@dataclass
class Wires:
    """Connections to a server that are kept open, each for one request at a time.

    The client shares the machine with the server, so that it does no more than it must: httpx takes as long over a
    request as a small model does.
    """

    host: str
    port: int
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def post(self, body: bytes) -> int:
        """Ask /predict, wait for the whole answer, and give its status."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self.host, self.port)
        writer.write(HEAD % (self.host.encode(), len(body)) + body)
        async with asyncio.timeout(ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        self._idle.append((reader, writer))
        return int(head.split(maxsplit=2)[1])

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def ask(url: str, bodies: Sequence[bytes], kind: str, level: float, seconds: float, load: Load) -> None:
    """Ask for some seconds, by so many clients or at such a rate, and add what comes of it to `load`."""
    address = urlsplit(url)
    wires = Wires(address.hostname or "", address.port or 80)
    start = time.perf_counter()
    if kind == "clients":
        await closed(wires, bodies, int(level), start + seconds, load)
    else:
        await opened(wires, bodies, level, start + seconds, load)
    load.seconds += time.perf_counter() - start
    wires.close()


async def closed(wires: Wires, bodies: Sequence[bytes], clients: int, end: float, load: Load) -> None:
    async def one(number: int) -> None:
        place = number
        while time.perf_counter() < end:
            await one_request(wires, bodies[place % len(bodies)], time.perf_counter(), load)
            place += clients

    await asyncio.gather(*(one(number) for number in range(clients)))


async def opened(wires: Wires, bodies: Sequence[bytes], rate: float, end: float, load: Load) -> None:
    draw, due, sent = random.Random(1), time.perf_counter(), []
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = bodies[len(sent) % len(bodies)]
        sent.append(asyncio.create_task(one_request(wires, body, due, load)))
        # Requests of independent users: gaps are exponential.
        due += draw.expovariate(rate)
    await asyncio.gather(*sent)


async def one_request(wires: Wires, body: bytes, since: float, load: Load) -> None:
    status = await wires.post(body)
    if status == 503:
        load.refused += 1
    elif status == 200:
        load.ms.append(1000 * (time.perf_counter() - since))
    else:
        raise RuntimeError(f"the server answered {status}")


if __name__ == "__main__":
    main()
