"""The command line: one file a command, with its options, the call and its output."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def main() -> None:
    """Entry point of the `sparsebert` command.

    Everything is imported inside the function, so that Ctrl-C ends the command with exit code 130 at any moment.
    """
    try:
        # Nothing that is imported becomes garbage, and searching it would take a twentieth of the time of `--help`.
        gc.disable()
        from sparsebert.cli.application import app

        gc.freeze()
        gc.enable()
        with _as_one_of_many():
            # The name also where it is started as a module: scripts that complete words are made for it.
            app(prog_name="sparsebert")
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _as_one_of_many() -> Iterator[None]:
    """Where a launcher such as torchrun started several processes, only the first gets into the block."""
    from sparsebert.environment import is_first, launched

    if launched() == 1:
        yield
        return
    from sparsebert.training.together import follow, leading

    if not is_first():
        follow()
        sys.exit()
    with leading():
        yield
