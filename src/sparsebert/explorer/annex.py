"""What else a live page may have, of which this package knows nothing but where it goes: an export has none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.routing import Route

from sparsebert.explorer.models import ShownModel

Shown = Mapping[str, ShownModel]
"""The models of a page by their keys."""


@dataclass(frozen=True)
class AnnexPart:
    """Sections below the page's own, and what their scripts are told."""

    section: Markup | str = ""
    data: Any = None


@dataclass(frozen=True)
class Annex:
    """The `part` of a page of some models, its files, and the routes that its scripts ask, which are told of models.

    `files` are scripts (.js) and styles (.css) by name, in the order in which they are loaded. `alone` says that there
    is something to show without any run. `close` ends what still works when the server does.
    """

    part: Callable[[Shown], AnnexPart] = lambda shown: AnnexPart()
    files: Mapping[str, Path] = field(default_factory=dict)
    routes: Callable[[Callable[[], Shown]], Sequence[Route]] = lambda models: ()
    alone: bool = False
    close: Callable[[], None] = lambda: None

    def names(self, suffix: str) -> list[str]:
        """Its files that end so."""
        return [name for name in self.files if name.endswith(suffix)]


NO_ANNEX = Annex()
