"""Make the transformers Auto classes know shrunk models, without importing transformers.

If transformers' table of configurations is there already, register at once; otherwise as soon as it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_TABLE = "transformers.models.auto.configuration_auto"


def install() -> None:
    """Register now or later. Calling it again changes nothing."""
    if _TABLE in sys.modules:
        _register()
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported:
    """Finds modules of transformers as usual, and registers once the table is there and none is half-imported.

    Registering needs the stock configurations, and these import the table themselves: done right after the table it
    would meet a module that is still being executed.

    A finder without the abstract class of finders: `importlib.abc` would take most of the time that it takes to import
    this package.
    """

    def __init__(self) -> None:
        self.running = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("transformers."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def counted(module: ModuleType) -> None:
            self.running += 1
            try:
                execute(module)
            finally:
                self.running -= 1
            if self.running == 0 and _TABLE in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        spec.loader.exec_module = counted
        return spec


def _register() -> None:
    importlib.import_module("sparsebert.models.shrunk").register_configs()
