"""The command `wherry` as a script of our own, where systems can execute scripts.

The wrapper that installers generate for an entry point imports `re`, half of what the
rest of our start costs. On POSIX systems the wheel brings its own two lines instead;
Windows, which executes no scripts, gets the entry point's .exe, and a wheel of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

IS_WINDOWS = sys.platform == "win32"


class CustomMetadataHook(MetadataHookInterface):
    """`[project.scripts]`, on Windows."""

    def update(self, metadata: dict[str, Any]) -> None:
        metadata["scripts"] = {"wherry": "wherry.__main__:main"} if IS_WINDOWS else {}


class CustomBuildHook(BuildHookInterface[Any]):
    """The script, elsewhere."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name != "wheel":
            return
        if IS_WINDOWS:
            import sysconfig

            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
        else:
            build_data["shared_scripts"] = {"scripts/wherry": "wherry"}
