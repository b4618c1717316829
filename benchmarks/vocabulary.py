"""How many entries of a tokenizer do the texts of a task need, and how many new texts change without the others?

    python benchmarks/vocabulary.py --task sst2 --data DIR --most 8000 4000

The entries are chosen by the train rows, whole, as `compress --vocabulary` does; a row of the table for the validation
texts, which had no part in it. Megabytes are those of the table of tokens in float32, dense and cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import options_of, print_table, with_task, write
from sparsebert.cli.output import quiet_libraries
from sparsebert.data.hold_out import row_texts
from sparsebert.data.load import load_task
from sparsebert.data.smaller_vocabulary import choose_entries, count_changed, count_entries, cut_tokenizer, kept_ids
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import resolve

MEGA, BYTES = 1e6, 4


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    with quiet_libraries():
        rows = found(options)
    print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_task(options_of(__doc__))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--most", type=int, nargs="*", default=[], help="also with so many entries at most")
    return parser.parse_args(argv)


def found(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for all entries that the train texts use, and one for each number."""
    source = resolve(options.model)
    tokenizer, config = load_tokenizer(source), load_config(source)
    task = load_task(options.task, options.data)
    train, new = ([text for one in row_texts(rows) for text in one] for rows in (task.train, task.validation))
    used, rows = count_entries(tokenizer, train), list[dict[str, object]]()
    for most in (None, *options.most):
        ids = kept_ids(tokenizer, choose_entries(tokenizer, used, most))
        changed = count_changed(tokenizer, cut_tokenizer(tokenizer, ids), ids, new)
        rows.append(
            {
                "task": options.task,
                "train_texts": len(train),
                "asked": "auto" if most is None else most,
                "entries": len(ids),
                "table_mb": round(len(ids) * config.hidden_size * BYTES / MEGA, 1),
                "dense_table_mb": round(config.vocab_size * config.hidden_size * BYTES / MEGA, 1),
                "new_texts": len(new),
                "changed": changed,
                "changed_percent": round(100 * changed / len(new), 1),
            }
        )
    return rows


if __name__ == "__main__":
    main()
