"""`--sdnotify`: whether a run of a container tells of itself, and where it finds the socket."""

from __future__ import annotations

import os

from wherry.files import make_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container
    from wherry.oci.runtime_spec import Mount, Spec

NAME = "notify.sock"
_INSIDE = "/run/notify"


def wanted(body: Mapping[str, Any]) -> str:
    """container, conmon or healthy; "" where nobody is to be told, or nobody wants to know."""
    mode = (body.get("Wherry") or {}).get("SdNotify") or ""
    return mode if os.environ.get("NOTIFY_SOCKET") else ""


def directory(container: Container) -> str:
    """Where the container's own socket is: a directory, which another socket may come to."""
    return os.path.join(container.run_directory, "notify")


def let_notify(container: Container, spec: Spec) -> None:
    """Give the container a socket of its own to tell of itself, where that is asked for."""
    if wanted(container.body) != "container":
        return
    make_dir(container.run_directory)
    mount: Mount = {
        "destination": _INSIDE,
        "type": "bind",
        "source": make_dir(directory(container), 0o755),
        "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
    }
    spec["mounts"] = [*spec["mounts"], mount]
    process = spec["process"]
    process["env"] = [*process["env"], f"NOTIFY_SOCKET={_INSIDE}/{NAME}"]
