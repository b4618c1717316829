"""Several processes that train one model: the first carries out the run, the others join it wherever it trains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sparsebert.environment import RANK
from sparsebert.progress import silent

T = TypeVar("T")
# A run may search, score and measure for hours between two trainings.
PATIENCE = timedelta(days=30)
LAST_WORD_S = 10.0


@dataclass
class _Team:
    """The processes of this command. Words go over `channel`, and not over the group that gradients are summed in.

    `lost` once a training has failed in this process: the others still wait in it, and hear nothing.
    """

    channel: Any
    lost: bool = False


_teams: list[_Team] = []


@contextmanager
def leading() -> Iterator[None]:
    """Carry out runs in the block as the first of the processes that a launcher started; at its end the others end."""
    with _team() as team:
        try:
            yield
        finally:
            if not team.lost:
                _told(None)


def follow() -> None:
    """Join the first process in every training, until it ends. Nothing is said, and nothing written but by Trainer."""
    with _team(), silent():
        while (call := _told(None)) is not None:
            function, arguments = call
            try:
                function(**arguments)
            except Exception:
                # Launchers end all with the first that fails, and the first process is to say why and record it.
                time.sleep(LAST_WORD_S)
                raise


def team_size() -> int:
    """How many processes train together here; 1 where no others have joined."""
    return dist.get_world_size() if _teams else 1


def together(function: Callable[..., T], shared: Mapping[str, Any], own: Mapping[str, Any]) -> T:
    """Call a function of a module in all processes, and give what it gave in this one, the first.

    The others get copies of what is `shared`, and nothing of what is this process's `own`.
    """
    if not _teams:
        return function(**shared, **own)
    team = _teams[0]
    _told((function, dict(shared)))
    team.lost = True
    result = function(**shared, **own)
    team.lost = False
    return result


def same(work: Callable[[], T]) -> T:
    """What the first process finds, in all of them; the others wait for it. All of them must call this."""
    if not _teams:
        return work()
    return _told(work() if dist.get_rank() == 0 else None)


def _told(word: Any) -> Any:
    """The word of the first process."""
    words = [word]
    dist.broadcast_object_list(words, src=0, group=_teams[0].channel)
    return words[0]


@contextmanager
def _team() -> Iterator[_Team]:
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ[RANK])))
    dist.init_process_group("nccl" if gpus else "gloo")
    team = _Team(dist.new_group(backend="gloo", timeout=PATIENCE))
    _teams.append(team)
    try:
        yield team
    finally:
        _teams.remove(team)
        if not team.lost:
            dist.destroy_process_group()
