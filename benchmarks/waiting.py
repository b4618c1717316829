"""Texts of all lengths wait together: should they go through a model as one batch, or as several by length?

    python benchmarks/waiting.py runs/sst2/dense-onnx runs/sst2/4x-onnx --waiting 8 32

A server's batch is such a mixture. `as one` pads all of them to the longest; the others cut them where that costs least
if calling the model takes as long as so many tokens do, which `Program.call_tokens` stands for. Texts are read into
tokens before. Each variant answers the same draws of texts, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Row, options_of, print_rows, rows_of, with_threads, write
from predict import texts_of
from sparsebert.data.batches import outputs_in_groups
from sparsebert.data.tokens import TokenColumns
from sparsebert.deployment.exported import Exported, file_reader, open_exported
from sparsebert.deployment.manifest import Manifest, ProgramFile, read_manifest
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.timing import Variant, interleave

AS_ONE = "as one"


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    rows: list[Row] = []
    for folder in options.folders:
        manifest = read_manifest(folder)
        for program in manifest.programs:
            try:
                rows += measured(options, manifest, folder, program)
            except RuntimeUnavailableError as error:
                print(f"left out: {error}")
    print_rows(rows)
    write(options, rows, options.threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, draws=8, rounds=9), default=1)
    parser.add_argument("folders", nargs="+", type=Path, help="exported folders")
    parser.add_argument("--waiting", type=int, nargs="+", default=[8, 32], help="texts that wait together")
    parser.add_argument("--call", type=int, nargs="+", default=[4, 16, 64], help="tokens that a call is taken to cost")
    parser.add_argument("--texts", type=Path, help="a text a line; none = reviews that ship with the package")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace, manifest: Manifest, folder: Path, program: ProgramFile) -> list[Row]:
    """Rows of one program: a case for each number of texts that wait."""
    reader = file_reader(manifest, folder)
    texts, found = texts_of(options.texts, 1000), list[Row]()
    for waiting in options.waiting:
        opened = open_exported(manifest, folder, program, reader, waiting, options.threads)
        draw = random.Random(0)
        columns = [reader.read(draw.sample(texts, waiting))[0] for _ in range(options.draws)]
        variants = [Variant(AS_ONE, run(opened, columns, None))]
        variants += [Variant(f"a call costs {call}", run(opened, columns, call)) for call in options.call]
        samples = interleave(variants, options.rounds)
        case = {"model": folder.name, "runtime": program.runtime, "waiting": waiting}
        found += rows_of(case, samples, {one.name: [AS_ONE] for one in variants[1:]})
    return found


def run(opened: Exported, drawn: Sequence[TokenColumns], call: int | None) -> Callable[[], None]:
    """Answers all draws, cut as if a call cost so many tokens; none = each as one batch."""
    whole = [cut(opened, columns, call) for columns in drawn]

    def answer() -> None:
        for columns, groups in zip(drawn, whole, strict=True):
            outputs_in_groups(columns, groups, opened.run)

    return answer


def cut(opened: Exported, columns: TokenColumns, call: int | None) -> list[list[int]]:
    return [list(range(len(columns["input_ids"])))] if call is None else opened.groups(columns, call)


if __name__ == "__main__":
    main()
