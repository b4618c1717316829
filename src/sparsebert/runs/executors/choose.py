"""From the words of `--on` to an executor."""

from __future__ import annotations

from sparsebert.environment import launched
from sparsebert.errors import UserError
from sparsebert.runs.executors.base import Executor, InProcess

ALLOWED = "local, local:N, ray, ray://HOST:PORT"
MOST_WORKERS = 1024


def executor(on: str | None = None, cpus_per_job: int | None = None, gpus_per_job: float | None = None) -> Executor:
    """Where jobs are to run.

    None and "local": here, one after the other. "local:N": in N processes of this machine, which share its cores and
    GPUs. "ray": on the cluster of the variable RAY_ADDRESS, else on one of this machine alone that ends with the
    command. "ray://HOST:PORT": on the cluster with this head, which this machine must have joined; the address is the
    one that `ray start --head` prints. A job has `cpus_per_job` threads (none = its share of the cores; on Ray, 1)
    and `gpus_per_job` GPUs (none = its share; on Ray, 1 where the cluster has GPUs). Raises UserError for other words,
    where Ray is not installed, for a cluster that does not answer, and among processes that a launcher started.
    """
    if on is None or on == "local":
        return InProcess()
    if launched() > 1:
        raise UserError(
            "Processes that train one model together do not give runs to others",
            got=f"--on {on}, and {launched()} processes of a launcher such as torchrun",
            fix="leave out the one or the other",
        )
    place, found, rest = on.partition(":")
    if place == "local" and found:
        from sparsebert.runs.executors.local import Processes

        return Processes(_count(rest, on), cpus_per_job)
    if on == "ray" or (place == "ray" and rest.startswith("//")):
        from sparsebert.runs.executors.cluster import OnRay

        return OnRay(rest.removeprefix("//").rstrip("/") or None, cpus_per_job or 1, gpus_per_job)
    raise UserError("Jobs cannot run there", got=on, allowed=ALLOWED)


def _count(text: str, on: object) -> int:
    is_whole = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_WORKERS))
    if not is_whole or not 1 <= int(text) <= MOST_WORKERS:
        raise UserError("The number of workers is a whole one", got=on, allowed=f"local:1 to local:{MOST_WORKERS:,}")
    return int(text)
