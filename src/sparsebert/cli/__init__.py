"""The command line: one file a command, with its options, the call and its output."""

import gc
import sys


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
        # The name also where it is started as a module: scripts that complete words are made for it.
        app(prog_name="sparsebert")
    except KeyboardInterrupt:
        sys.exit(130)
