"""Which models can be asked: those that were given, and those of the shown runs whose folders are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sparsebert import registry
from sparsebert.deployment.manifest import is_exported, read_manifest
from sparsebert.errors import UserError
from sparsebert.explorer.models import ShownModel
from sparsebert.files import home_of
from sparsebert.records import Flip, Record, Shape

CONFIG_FILE = "config.json"
GIVEN = "model: "
"""What the keys of models begin with that no run stands for."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class AskedModel:
    """A model that can be asked: `place` is its folder or its name on the hub.

    `shape` and `flips` are those of its `record`; none, or empty, where there is no record.
    """

    key: str
    name: str
    place: str
    task: str = ""
    dense: bool = False
    shape: Shape | None = None
    flips: tuple[Flip, ...] = ()
    record: Record | None = None

    @property
    def is_programs(self) -> bool:
        """Whether it is an exported folder, which needs no torch."""
        return is_exported(home_of(self.place))

    @property
    def now(self) -> tuple[str, int, int]:
        """The place and which folder is there now: a run that is made again puts another one there."""
        folder = home_of(self.place)
        if not folder.is_dir():
            return self.place, 0, 0
        found = folder.stat()
        return self.place, found.st_ino, found.st_mtime_ns


@dataclass(frozen=True)
class OfferedRuntime:
    """A runtime of a model, and why it does not run here; none where it may."""

    name: str
    obstacle: str | None = None


def divided(names: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """Of what was given the runs, and the models: folders of them, or names of the hub with an owner.

    Raises UserError for a name that is neither.
    """
    models = tuple(name for name in names if _is_model(home_of(name)) or _is_hub_name(name))
    runs = [home_of(name) for name in names if name not in models]
    for path in runs:
        if not path.exists():
            raise UserError(
                "There is no such run or model",
                got=path,
                fix="give folders of runs or models, record.json files, or OWNER/NAME",
            )
    return runs, models


def _is_model(path: Path) -> bool:
    return (path / CONFIG_FILE).is_file() or is_exported(path)


def _is_hub_name(name: str) -> bool:
    """A path of two parts whose first is a folder here was meant for one in it."""
    path = home_of(name)
    return _HUB_NAME.fullmatch(name) is not None and not path.exists() and not path.parent.exists()


def catalogue(given: Sequence[str], shown: Iterable[ShownModel]) -> dict[str, AskedModel]:
    """All of them by their keys, those that were given first. Medians over seeds are no models."""
    own = [AskedModel(GIVEN + name, name, name) for name in dict.fromkeys(given)]
    made = [_made(model) for model in shown if len(model.family.records) == 1]
    return {model.key: model for model in (*own, *filter(None, made))}


def medians(asked: Mapping[str, AskedModel], shown: Iterable[ShownModel]) -> dict[str, str]:
    """By the key of a median over seeds, the key of a model that is behind it and can be asked."""
    places = {model.place: model.key for model in asked.values()}
    several = ((model.key, _folder(model)) for model in shown if len(model.family.records) > 1)
    return {key: places[folder] for key, folder in several if folder in places}


def _made(model: ShownModel) -> AskedModel | None:
    record, result = model.first
    folder = _folder(model)
    if not _is_model(Path(folder)):
        return None
    # Of words the texts of flips are parts, with the word in brackets.
    flips = () if result.decisions is None or result.decisions.types else result.decisions.flips
    dense = result is record.models[0] and result.target_kind is None and not result.phases
    return AskedModel(
        model.key, f"{model.name} of {model.run}", folder, record.task, dense, result.shape, flips, record
    )


def _folder(model: ShownModel) -> str:
    return str(model.file.parent / model.first[1].folder)


def offered(model: AskedModel) -> list[OfferedRuntime]:
    """What a Predictor offers for it, the choice by measuring first. Raises UserError where it cannot be asked at all.

    Of a model that is no exported folder this imports torch.
    """
    from sparsebert.deployment.predictor import AUTO

    if model.is_programs:
        programs = read_manifest(home_of(model.place)).programs
        return [OfferedRuntime(AUTO), *(OfferedRuntime(one.runtime) for one in programs)]
    need_torch(model)
    from sparsebert.runtimes.runtime import obstacles

    usable = [(name, why) for name, why in obstacles().items() if not registry.get("runtime", name).calibrated]
    return [OfferedRuntime(AUTO), *(OfferedRuntime(name, why) for name, why in usable)]


def need_torch(model: AskedModel) -> None:
    """Raises UserError where the model is opened by torch, which is not installed."""
    if not model.is_programs and find_spec("torch") is None:
        raise UserError(
            f"{model.name} is opened by torch, which is not installed",
            fix="pip install torch, or give an exported folder",
        )
