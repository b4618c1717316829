"""What a server takes at most, and what a request is told that it does not take."""

from __future__ import annotations

from dataclasses import dataclass

from sparsebert.errors import UserError


@dataclass(frozen=True)
class Limits:
    """`batch` texts go through a model at a time, and wait for company `wait_ms` at most; `queue` texts wait in all.

    A request has at most `texts` texts of `letters` characters each, in `body_bytes`, and an answer within `timeout_s`;
    `connections` may be open at once.
    Raises UserError for limits that no request could meet.
    """

    batch: int = 32
    wait_ms: float = 5.0
    queue: int = 1024
    texts: int = 256
    letters: int = 20_000
    body_bytes: int = 4 * 2**20
    timeout_s: float = 30.0
    connections: int = 512

    def __post_init__(self) -> None:
        if self.queue < self.texts:
            raise UserError(
                "A request of the most texts would never find room in the queue",
                got=f"--queue {self.queue}",
                allowed=f"--max-texts {self.texts} or more",
            )


class RefusedError(Exception):
    """A request that is not answered: its status, one line that says why, and headers."""

    def __init__(self, status: int, why: str, retry_s: int | None = None) -> None:
        super().__init__(why)
        self.status, self.why = status, why
        self.headers = {} if retry_s is None else {"Retry-After": str(retry_s)}


# As nginx has it: nobody reads that answer, but the log and the metrics name it.
CLIENT_GONE = 499
AT_ONCE_S = 1
"""Seconds after which a full queue may have room."""


def client_gone() -> RefusedError:
    """The client has left before its answer was there."""
    return RefusedError(CLIENT_GONE, "The client has gone")
