"""Objects for other processes: of `test_remote.py`, which imports neither torch nor numpy for them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from sparsebert.errors import UserError


class Told:
    """Says what it is told to, and fails in every way."""

    def __init__(self, word: str) -> None:
        if word == "refused":
            raise UserError("It cannot be made", got=word)
        self.word, self.calls = word, 0

    def said(self, *more: object) -> tuple[object, ...]:
        """The word, what comes with it, and how often it was asked."""
        sys.stdout.write("on the screen\n")
        sys.stdout.flush()
        self.calls += 1
        return self.word, *more, self.calls

    def place(self) -> tuple[int, int, bool, bool]:
        """Process, group, and whether the modules of tests and of the user's script are there."""
        main = sys.modules["__main__"]
        return os.getpid(), os.getpgrp(), "remote_objects" in sys.modules, "pytest" in vars(main)

    def fails(self) -> None:
        """A bug."""
        raise ZeroDivisionError("by nothing")

    def dies(self, number: int) -> None:
        """Killed by a signal."""
        os.kill(os.getpid(), number)

    def ends(self) -> None:
        """An end of its own, with a last word."""
        sys.stderr.write("one line\nthe last line\n")
        sys.stderr.flush()
        os._exit(3)

    def hangs(self) -> None:
        """For ever."""
        signal.pause()

    def spins(self, seconds: float) -> float:
        """Answers, while a thread goes on computing for so long; gives when that ends by the clock of all processes."""
        end = time.perf_counter() + seconds

        def spin() -> None:
            while time.perf_counter() < end:
                pass

        threading.Thread(target=spin, daemon=True).start()
        return end
