"""Hooks of the runtime-spec: programs that run at fixed points of a container's life."""

from __future__ import annotations

import os
import subprocess

from wherry.errors import WherryError
from wherry.lean import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.oci.runtime_spec import Hook


def run_hooks(hooks: list[Hook], kind: str, state: dict[str, Any]) -> None:
    """Run `hooks` in order, the container's state on their standard input.

    Raises WherryError at the first that fails or takes longer than its `timeout`.
    """
    text = dump_json(state).encode()
    for hook in hooks:
        variables = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
        try:
            result = subprocess.run(
                hook.get("args") or [hook["path"]],
                executable=hook["path"],
                env=variables,
                input=text,
                capture_output=True,
                timeout=hook.get("timeout"),
                cwd=state["bundle"] if os.path.isdir(state["bundle"]) else "/",
            )
        except subprocess.TimeoutExpired as error:
            raise WherryError(
                f"{kind} hook {hook['path']} took longer than {hook['timeout']} s"
            ) from error
        except OSError as error:
            raise WherryError(
                f"cannot run {kind} hook {hook['path']}: {error.strerror}"
            ) from error
        if result.returncode != 0:
            said = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise WherryError(
                f"{kind} hook {hook['path']} failed with exit code {result.returncode}"
                + (f": {said}" if said else "")
            )
