"""Build hook: compile the native kernels into the wheel where that can be done, else leave them out."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeKernels(BuildHookInterface):
    """Puts `_native.so` beside the code, in wheels and in editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a machine without a compiler gets the pure wheel."""
        script = Path(self.root) / "csrc" / "build.py"
        spec = importlib.util.spec_from_file_location("sparsebert_native_build", script)
        assert spec is not None and spec.loader is not None
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        try:
            native.build()
        except native.BuildError as error:
            native.OUTPUT.unlink(missing_ok=True)
            self.app.display_warning(f"Native kernels left out: {error}")
            return
        build_data["artifacts"].append("src/sparsebert/kernels/_native.so")
        platform_tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.update(pure_python=False, tag=f"py3-none-{platform_tag}")
