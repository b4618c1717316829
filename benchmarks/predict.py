"""How many texts a second does the predictor answer, against a `text-classification` pipeline of transformers?

    python benchmarks/predict.py --model demo/dense --exported served --threads 1

The pipeline gets the same texts, model, threads and batch; it takes texts in their order, so that a batch is as long as
its longest text, the predictor those of like length together. Answers are compared first. Of an exported folder every
program that can run here is a variant. `tokens alone` is what reading the texts takes of that.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import pipeline

from harness import Row, options_of, print_table, rows_of, with_threads, write
from sparsebert.cli.output import quiet_libraries
from sparsebert.data.load import load_task
from sparsebert.deployment.manifest import read_manifest
from sparsebert.deployment.plain import inference_of
from sparsebert.deployment.predictor import Predictor
from sparsebert.models.source import resolve
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.timing import Variant, interleave, torch_threads

PIPELINE, TOKENS, CLOSE = "pipeline", "tokens alone", 1e-3


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    texts = texts_of(options.texts, options.count)
    with torch_threads(options.threads) as threads, quiet_libraries():
        pipe = pipeline("text-classification", options.model, batch_size=options.batch, truncation=True)
        predictors = {"eager": Predictor(options.model, "eager", batch=options.batch, threads=threads)}
        predictors |= exported(options, threads)
        expected = pipe(texts)
        for name, predictor in predictors.items():
            check(name, predictor(texts), expected, exact="int8" not in name)
        reader = inference_of(resolve(options.model), None, "eager", options.batch).reader
        variants = [
            Variant(PIPELINE, lambda: pipe(texts)),
            *(Variant(name, lambda one=one: one(texts)) for name, one in predictors.items()),
            Variant(TOKENS, lambda: reader.read(texts)),
        ]
        samples = interleave(variants, options.rounds)
    found = rows_of(
        {"texts": len(texts), "batch": options.batch}, samples, {one.name: [PIPELINE] for one in variants[1:]}
    )
    print(f"{len(texts)} texts, {options.batch} at a time, {threads} threads, {options.rounds} rounds\n")
    print_rates(found)
    write(options, found, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, count=512, batch=32, rounds=9), default=1)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned classifier")
    parser.add_argument("--exported", type=Path, help="the same model, exported")
    parser.add_argument("--texts", type=Path, help="a text a line; none = reviews that ship with the package")
    return parser.parse_args(argv)


def texts_of(file: Path | None, count: int) -> list[str]:
    """As many texts; those of a short file come again."""
    found = load_task("reviews", None).train["text_a"] if file is None else file.read_text("utf-8").splitlines()
    return [found[place % len(found)] for place in range(count)]


def exported(options: argparse.Namespace, threads: int) -> dict[str, Predictor]:
    """A predictor for each program that can run here."""
    found: dict[str, Predictor] = {}
    for program in read_manifest(options.exported).programs if options.exported else ():
        try:
            found[program.runtime] = Predictor(options.exported, program.runtime, batch=options.batch, threads=threads)
        except RuntimeUnavailableError as error:
            print(f"left out: {error}")
    return found


def check(name: str, answers: Any, expected: Any, exact: bool) -> None:
    """Raises SystemExit where labels or probabilities differ, with 8 bits where more than a tenth of the labels do."""
    other = [one["label"] != right["label"] for one, right in zip(answers, expected, strict=True)]
    apart = max(abs(one["score"] - right["score"]) for one, right in zip(answers, expected, strict=True))
    print(f"{name}: {sum(other)} of {len(other)} labels differ, probabilities by {apart:.1e} at most")
    if apart > CLOSE if exact else sum(other) > len(other) / 10:
        raise SystemExit(f"{name} does not answer as the pipeline")


def print_rates(found: Sequence[Row]) -> None:
    lines = []
    for row in found:
        times, count = row["times"], row["case"]["texts"]
        speedup = (
            f"{times['speedup']:.2f} ({times['speedup_q25']:.2f}–{times['speedup_q75']:.2f})"
            if row["baseline"]
            else "1"
        )
        lines.append(
            [row["variant"], f"{1000 * count / times['median_ms']:,.0f}", f"{times['median_ms']:.1f}", speedup]
        )
    print_table(["variant", "texts per second", "ms for all", f"times as fast as {PIPELINE} (quartiles)"], lines)


if __name__ == "__main__":
    main()
