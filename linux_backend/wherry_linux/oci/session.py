"""What the options before the command set."""

from __future__ import annotations

import binascii
import os

from wherry import paths
from wherry.errors import WherryError
from wherry.files import claim_directory
from wherry.lean import dump_json
from wherry_linux.cgroups import available_controllers
from wherry_linux.group_places import group_path
from wherry_linux.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.oci.runtime_spec import Spec

# What podman (containers.conf, pids_limit) gives to every container.
_PODMAN_PIDS = 2048

_LEVELS = ("debug", "info", "warning", "error")


def _default_root() -> str:
    """Where the state is kept; podman makes its user root of a user namespace first."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    with open("/proc/self/uid_map") as file:
        is_other = os.geteuid() == 0 and file.read().split()[:2] != ["0", "0"]
    if is_other and runtime_dir and not os.environ.get("WHERRY_ROOT"):
        claim_directory(f"{runtime_dir}/wherry")
        return f"{runtime_dir}/wherry/oci"
    claim_directory(paths.run())
    return paths.oci_root()


class Session:
    """One call of the runtime."""

    def __init__(
        self,
        *,
        root: str = "",
        log: str = "",
        log_format: str = "text",
        debug: bool = False,
        systemd_cgroup: bool = False,
        cgroup_manager: str = "cgroupfs",
        **_: Any,
    ) -> None:
        self.runtime = Runtime(os.path.abspath(root) if root else _default_root())
        self.runtime.warn = self.warn
        self._systemd = systemd_cgroup or cgroup_manager == "systemd"
        self._has_groups = cgroup_manager != "disabled"
        self._log = log
        self._format = log_format
        self._least = _LEVELS.index("debug" if debug else "info")

    def warn(self, message: str) -> None:
        """Log what could not be done as asked: standard error is the container's own."""
        self.log("warning", message)

    def fit_to_host(self, spec: Spec, container_id: str) -> None:
        """Settle what a spec leaves to the host: the control group, and limits it cannot have.

        A limit that the host cannot enforce is an error, but for the one that podman
        sets where its user asked for none.
        """
        linux = spec["linux"]
        path = self._group_path(linux.get("cgroupsPath") or "", container_id)
        if path is None:
            linux.pop("cgroupsPath", None)
        else:
            linux["cgroupsPath"] = path
        resources = linux.get("resources") or {}
        pids = (resources.get("pids") or {}).get("limit")
        if pids == _PODMAN_PIDS and (path is None or "pids" not in available_controllers()):
            self.warn(f"this host cannot enforce the default limit of {pids} processes")
            del resources["pids"]

    def _group_path(self, wanted: str, container_id: str) -> str | None:
        if not self._has_groups:
            return None
        # Runtimes with other state directories may have a container of the same id.
        name = f"{container_id}.{binascii.crc32(os.fsencode(self.runtime.root)):08x}"
        return group_path(wanted, name, systemd=self._systemd)

    def log(self, level: str, message: str) -> None:
        """Add a line to the log that the caller asked for, in the words that engines parse."""
        if not self._log or _LEVELS.index(level) < self._least:
            return
        import time

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._format == "json":
            line = dump_json({"level": level, "msg": message, "time": now})
        else:
            quoted = dump_json(message)
            line = f'time="{now}" level={level} msg={quoted}'
        try:
            with open(self._log, "a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise WherryError(f"cannot write log {self._log}: {error.strerror}") from error
