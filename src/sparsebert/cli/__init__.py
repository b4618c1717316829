"""The command line: names, options and help. The work is in `commands`, imported when a command runs."""

from sparsebert.cli import making, showing
from sparsebert.cli.options import app

__all__ = ["app", "main", "making", "showing"]


def main() -> None:
    """Entry point of the `sparsebert` command."""
    # Also where it is started as a module: scripts that complete words are made for this name.
    app(prog_name="sparsebert")
