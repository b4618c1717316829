"""What a server says of itself: lines of JSON on stderr, and numbers for Prometheus. Texts are in neither."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LOGGER = logging.getLogger("sparsebert.serve")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `message`, and the facts of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Of an error its type and where it arose: what it says may repeat a text."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            said["error"] = record.exc_info[0].__name__
            said["at"] = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(said | record.__dict__.get("facts", {}))


def log_as_json() -> None:
    """All loggers of the process write JSON to stderr: this package what happens, others what goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    LOGGER.setLevel(logging.INFO)


def tell(message: str, **facts: Any) -> None:
    """Write one line."""
    LOGGER.info(message, extra={"facts": facts})


@dataclass
class Seen:
    """What is known of a request when it has been answered."""

    request_id: str
    route: str = "other"
    model: str = ""
    texts: int = 0
    status: int = 500


class Meters:
    """The numbers of /metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        of = ("route", "model", "status")
        self._requests = Counter("sparsebert_requests", "Requests answered", of, registry=registry)
        self._seconds = Histogram(
            "sparsebert_request_seconds", "Request to answer", of[:2], buckets=SECONDS, registry=registry
        )
        self._texts = Counter("sparsebert_texts", "Texts answered", ["model"], registry=registry)
        self._batches = Histogram(
            "sparsebert_batch_texts", "Texts that went through together", ["model"], buckets=TEXTS, registry=registry
        )
        self._queue = Gauge("sparsebert_queue_texts", "Texts that wait", ["model"], registry=registry)
        self._closed = Counter("sparsebert_connections_closed", "Closed unasked", ["why"], registry=registry)

    def watch(self, model: str, waiting: Callable[[], int]) -> Callable[[int], None]:
        """Show what `waiting` gives as the length of a model's queue; gives what is to be told of each batch."""
        self._queue.labels(model).set_function(waiting)
        self._texts.labels(model)
        return self._batches.labels(model).observe

    def count(self, seen: Seen, seconds: float) -> None:
        """Add a request."""
        self._requests.labels(seen.route, seen.model, str(seen.status)).inc()
        self._seconds.labels(seen.route, seen.model).observe(seconds)
        if seen.texts and seen.status == 200:
            self._texts.labels(seen.model).inc(seen.texts)

    def closed(self, why: str) -> None:
        """Add a connection that the server closed before it had a request."""
        self._closed.labels(why).inc()

    def page(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self._registry)
