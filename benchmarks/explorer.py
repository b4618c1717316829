"""How long does the explorer take to open a folder of records, and to answer a click?

    python benchmarks/explorer.py --records 500 --clicks 1000 --browser /usr/bin/chromium

Records are made in code: four models each, over methods and seeds, with heads, zeros and a training. In each round a
new `sparsebert explore` is started on them, in turn on all of them and on one. Opening counts from the start of the
process to the end of the answer that holds the page; an answer is the part of the page on one model. With --browser
also the first paint, the time from a choice to the drawn model, and how much the script's memory grows in the second
half of the choices, both ends after a collection.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from harness import options_of, print_table, write
from sparsebert.environment import environment
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import (
    Environment,
    ModelResult,
    Record,
    Score,
    Shape,
    Size,
    Sparsity,
    SparsityAt,
    Timing,
    TrainingRun,
    write_record,
)

LAYERS, HEADS, NEURONS = 6, 12, 1536
CRITERIA = ("obs", "magnitude", "gradient", "activation", "loss_increase", "random")
MATRICES = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
START_S, ANSWER_S = 120.0, 60.0
MEGA = 1e6


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    with tempfile.TemporaryDirectory() as folder:
        cases = {count: made(Path(folder) / str(count), count) for count in (1, options.records)}
        rows = [row for count, home in cases.items() for row in measured(options, count, home)]
    shown = ("records", "what", "median", "least", "most", "n")
    print_table(shown, [[str(row[name]) for name in shown] for row in rows])
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__, records=500, rounds=5, clicks=200)
    parser.add_argument("--browser", help="a Chromium; none = the server alone")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace, count: int, home: Path) -> Iterator[dict[str, Any]]:
    """A row for each of what was measured on a folder of so many records."""
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        started = time.perf_counter()
        with running(home) as url, httpx.Client(base_url=url, timeout=ANSWER_S) as client:
            page = client.get("/").text
            found.setdefault("open, s", []).append(time.perf_counter() - started)
            keys = keys_of(page)
            wanted = random.Random(0).choices(keys, k=max(1, options.clicks // options.rounds))
            found.setdefault("answer, ms", []).extend(answer_ms(client, key) for key in wanted)
            if options.browser:
                for name, numbers in watched(options, url, keys).items():
                    found.setdefault(name, []).extend(numbers)
    for what, numbers in found.items():
        middle, least, most = (f"{one:.3g}" for one in (statistics.median(numbers), min(numbers), max(numbers)))
        yield {"records": count, "what": what, "median": middle, "least": least, "most": most, "n": len(numbers)}


def keys_of(page: str) -> list[str]:
    """What the page's links call its models."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    return [point["key"] for point in json.loads(data[1])["points"]]


def answer_ms(client: httpx.Client, key: str) -> float:
    started = time.perf_counter()
    client.get("/model", params={"key": key}).raise_for_status()
    return 1000 * (time.perf_counter() - started)


def watched(options: argparse.Namespace, url: str, keys: Sequence[str]) -> dict[str, list[float]]:
    """First paint, clicks, and memory in a browser. A click is over when the pictures of the model are drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url, wait_until="load")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        session = page.context.new_cdp_session(page)

        def heap() -> float:
            session.send("HeapProfiler.collectGarbage")
            return page.evaluate("performance.memory.usedJSHeapSize") / MEGA

        draw = random.Random(0)
        clicks = max(2, options.clicks // options.rounds)
        # What is kept of earlier answers is there before memory is looked at.
        times = [page.evaluate(CLICK, draw.choice(keys)) for _ in range(clicks // 2)]
        before = heap()
        times += [page.evaluate(CLICK, draw.choice(keys)) for _ in range(clicks - clicks // 2)]
        grown = heap() - before
        browser.close()
    return {"first paint, ms": [paint], "click to picture, ms": times, "memory grown, MB": [grown]}


# The same as a click on a point: plotly's own search for the point that is near the pointer comes before.
CLICK = """async (key) => {
  const start = performance.now();
  changeState({ model: key });
  while (document.querySelector("#chosen article")?.dataset.key !== key || !document.querySelector("#chosen .main-svg"))
    await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


@contextmanager
def running(home: Path) -> Iterator[str]:
    """An explorer on a free port, and its address."""
    command = [sys.executable, "-m", "sparsebert", "explore", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()
            process.wait(START_S)


def made(home: Path, count: int) -> Path:
    """A folder of so many records."""
    draw, where = random.Random(0), environment()
    for number in range(count):
        write_record(a_record(number, where, draw), home / f"run-{number:04}")
    return home


def a_record(number: int, where: Environment, draw: random.Random) -> Record:
    targets = [{"kind": "speedup", "value": value} for value in (2, 4, 8)]
    criterion = CRITERIA[number % len(CRITERIA)]
    recipe = parse_recipe({"task": "sst2", "criterion": criterion, "seed": number // len(CRITERIA), "targets": targets})
    return Record(
        kind="compress",
        status="finished",
        created="2026-11-30T12:00:00Z",
        seconds=900.0,
        seed=recipe.seed,
        command=f"sparsebert compress --task sst2 --criterion {criterion} --speedup 2 --speedup 4 --speedup 8",
        recipe_hash=recipe.hash,
        recipe=recipe.plain(),
        environment=where,
        task="sst2",
        main_metric="accuracy",
        models=tuple(a_model(speedup, draw) for speedup in (1, 2, 4, 8)),
    )


def a_model(speedup: int, draw: random.Random) -> ModelResult:
    left = 1 / speedup
    heads = tuple(max(1, round(HEADS * left * draw.uniform(0.6, 1))) for _ in range(LAYERS))
    kept = tuple(tuple(sorted(draw.sample(range(HEADS), count))) for count in heads)
    accuracy = 0.91 - 0.01 * (speedup - 1) * draw.uniform(0.5, 1.5)
    score = Score(metric="accuracy", value=accuracy, split="validation", examples=872, low=accuracy - 0.02, high=0.99)
    name = "dense" if speedup == 1 else f"{speedup}x"
    run = TrainingRun(
        steps=4000, epochs=2, examples=67349, seconds=400, final_loss=0.2, dtype="float32", teacher=speedup > 1
    )
    return ModelResult(
        name=name,
        folder=name,
        target_kind=None if speedup == 1 else "speedup",
        target_value=None if speedup == 1 else float(speedup),
        shape=Shape(
            heads=heads,
            neurons=tuple(round(NEURONS * left * draw.uniform(0.6, 1)) for _ in range(LAYERS)),
            full_heads=HEADS,
            full_neurons=NEURONS,
            kept_heads=kept,
            head_importance=tuple(tuple(draw.random() for _ in range(HEADS)) for _ in range(LAYERS)),
        ),
        scores=(score,),
        sparsity=Sparsity(encoder_linear=1 - left, whole_model=(1 - left) / 2, bytes_on_disk=(1 - left) / 2),
        size=Size(
            parameters=22_000_000,
            encoder_linear_parameters=10_000_000,
            embedding_parameters=12_000_000,
            weight_bytes=88_000_000,
        ),
        timings=tuple(a_timing(scope, length, speedup, draw) for scope in ("model", "encoder") for length in (32, 128)),
        phases={},
        training=run,
        timeline=tuple(
            SparsityAt(step=step, loss=0.7 - step / 8000, sparsity=step / 5000) for step in range(0, 4000, 100)
        ),
        sparsity_by_tensor={
            f"bert.encoder.layer.{layer}.{part}.weight": draw.random() for layer in range(LAYERS) for part in MATRICES
        },
    )


def a_timing(scope: Any, length: int, speedup: int, draw: random.Random) -> Timing:
    ms = 0.1 * length / speedup * draw.uniform(0.9, 1.1)
    ratio = speedup * draw.uniform(0.9, 1.1)
    return Timing(
        scope=scope,
        backend="eager",
        dtype="float32",
        attention="sdpa",
        batch=1,
        length=length,
        threads=1,
        rounds=15,
        median_ms=ms,
        q25_ms=0.98 * ms,
        q75_ms=1.02 * ms,
        tokens_per_s=1000 * length / ms,
        speedup=ratio,
        speedup_low=0.98 * ratio,
        speedup_high=1.02 * ratio,
    )


if __name__ == "__main__":
    main()
