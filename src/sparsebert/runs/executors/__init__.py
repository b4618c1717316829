"""Where jobs run: in this process, in several on this machine, or on a Ray cluster."""

from sparsebert.processes import Failed
from sparsebert.runs.executors.base import RETRIES, Executor
from sparsebert.runs.executors.choose import executor

__all__ = ["RETRIES", "Executor", "Failed", "executor"]
