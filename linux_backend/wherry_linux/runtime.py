"""An OCI runtime: runtime-spec "Operations" over bundles, with state in one directory.

ROOT/<id>/state.json     pid with start time, bundle, control group
ROOT/<id>/exec.fifo      there until `start` writes to it
"""

from __future__ import annotations

import errno
import os
import select
import sys

from wherry import paths
from wherry.errors import Conflict, NotFound, UsageError, WherryError
from wherry.files import make_dir, read_json, remove_file, write_json
from wherry.oci import OCI_VERSION
from wherry.oci.shape import SPEC
from wherry.shapes import TEXTS
from wherry_linux.cgroups import Cgroup
from wherry_linux.check import check_spec
from wherry_linux.processes import is_alive, signal, wait_gone

_RECORD = {
    "id!": str,
    "ociVersion!": str,
    "bundle!": str,
    "annotations!": TEXTS,
    "pid": int,
    "startTime": int,
    "created!": (int, float),
    "cgroup": str,
    "resctrl": [str],
    "hooks!": {"*": [dict]},
    "rootfs!": str,
    "owner!": int,
    "config!": str,
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.oci.runtime_spec import LinuxResources, Spec
    from wherry_linux.creation import Created


class Runtime:
    """The containers whose state is kept below `root`."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or paths.oci_root()
        self.warn: Callable[[str], None] = _print_warning

    def create(
        self,
        container_id: str,
        bundle: str,
        *,
        spec: Spec | None = None,
        stdio: tuple[int, int, int] | None = None,
        console_socket: Any = None,
        pid_file: str | None = None,
        preserve: int = 0,
        new_keyring: bool = True,
        pivot: bool = True,
        supervise: bool = False,
        freeze: bool = False,
    ) -> Created:
        """Make the container of a bundle, everything but its program.

        `supervise`: this process becomes the container's parent, and its end the
        container's end. `freeze` keeps a copy of the spec, which a later change of the
        bundle does not reach. The caller owns the Created's channel and terminal.
        Nothing is left behind when it raises.
        """
        from wherry_linux.creation import Creation

        check_id(container_id)
        bundle = os.path.abspath(bundle)
        if spec is None:
            spec = load_spec(bundle)
        check_spec(spec)
        if spec["linux"].get("seccomp"):
            from wherry_linux import seccomp

            seccomp.prepare(spec["linux"]["seccomp"])
        directory = self._claim(container_id)
        state: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": container_id,
            "status": "creating",
            "pid": 0,
            "bundle": bundle,
            "annotations": spec.get("annotations") or {},
        }
        creation = Creation(directory, state, spec, supervise=supervise, freeze=freeze)
        try:
            return creation.make(
                stdio=stdio,
                console_socket=console_socket,
                pid_file=pid_file,
                preserve=preserve,
                new_keyring=new_keyring,
                pivot=pivot,
            )
        except BaseException:
            creation.undo()
            _forget(directory)
            if creation.is_hooked:
                self._run_last_hooks(spec.get("hooks") or {}, {**state, "status": "stopped"})
            raise

    def _claim(self, container_id: str) -> str:
        """The directory of a new container."""
        directory = os.path.join(self.root, container_id)
        make_dir(self.root, 0o711)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Conflict(f"container {container_id} already exists") from None
        return directory

    def start(self, container_id: str) -> None:
        """Let a created container run its program."""
        record = self.record(container_id)
        if self.status(record) != "created":
            raise Conflict(f"cannot start container {container_id}: it is {self.status(record)}")
        fifo = os.path.join(self.root, container_id, "exec.fifo")
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENXIO):
                raise
            raise Conflict(f"cannot start container {container_id}: it has ended") from error
        try:
            os.write(descriptor, b"1")
            os.unlink(fifo)
            # Who joins the container from now on must not meet an interpreter in it.
            _wait_for_program(descriptor)
        finally:
            os.close(descriptor)
        hooks = record["hooks"].get("poststart")
        if hooks:
            from wherry_linux.hooks import run_hooks

            try:
                run_hooks(hooks, "poststart", public_state(record, "running"))
            except WherryError:
                self.kill(container_id, 9)
                raise

    def update(self, container_id: str, changes: LinuxResources) -> None:
        """Change what a container may use, and its config with it where that is our own."""
        record = self.record(container_id)
        Cgroup(record["cgroup"]).limit(changes)
        if os.path.dirname(record["config"]) == os.path.join(self.root, container_id):
            from wherry_linux.limits import merge

            spec: Spec = read_json(record["config"])
            spec["linux"]["resources"] = merge(spec["linux"].get("resources") or {}, changes)
            write_json(record["config"], spec)

    def record(self, container_id: str) -> dict[str, Any]:
        """What `create` recorded. Raises NotFound."""
        check_id(container_id)
        try:
            record: dict[str, Any] = read_json(
                os.path.join(self.root, container_id, "state.json"), _RECORD
            )
        except FileNotFoundError:
            raise NotFound(f"container {container_id} does not exist") from None
        return {"pid": 0, "startTime": None, "cgroup": None, "resctrl": [], **record}

    def status(self, record: dict[str, Any]) -> str:
        """created, running, paused or stopped, as it is now."""
        if not is_alive(record["pid"], record["startTime"]):
            return "stopped"
        if os.path.exists(os.path.join(self.root, record["id"], "exec.fifo")):
            return "created"
        if record["cgroup"] and Cgroup(record["cgroup"]).is_frozen():
            return "paused"
        return "running"

    def state(self, container_id: str) -> dict[str, Any]:
        """The container's state as runtime-spec defines it."""
        record = self.record(container_id)
        return public_state(record, self.status(record))

    def containers(self) -> list[str]:
        """The ids of all containers."""
        try:
            return sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []

    def kill(self, container_id: str, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to every one."""
        record = self.record(container_id)
        if everyone and record["cgroup"]:
            cgroup = Cgroup(record["cgroup"])
            if number == 9:
                cgroup.kill()
                return
            for pid in cgroup.processes():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            return
        if not signal(record["pid"], record["startTime"], number):
            raise Conflict(f"container {container_id} is not running")
        if number == 9 and record["cgroup"]:
            cgroup = Cgroup(record["cgroup"])
            if cgroup.is_frozen():
                # A frozen process dies of SIGKILL, but its pid namespace's others wait.
                cgroup.freeze(frozen=False)

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove what `create` made. The container has to be stopped, or `force` kills it."""
        try:
            record = self.record(container_id)
        except NotFound:
            directory = os.path.join(self.root, container_id)
            if not os.path.isdir(directory):
                if force:
                    return
                raise
            # A `create` that was killed before it made anything.
            _forget(directory)
            return
        status = self.status(record)
        if status != "stopped":
            if not force and status != "created":
                raise Conflict(
                    f"cannot delete container {container_id}: it is {status}",
                    hint="stop it first, or use --force",
                )
            signal(record["pid"], record["startTime"], 9)
            if record["cgroup"]:
                Cgroup(record["cgroup"]).kill()
            wait_gone(record["pid"], record["startTime"], 10)
        if record["cgroup"]:
            cgroup = Cgroup(record["cgroup"])
            if os.path.isdir(cgroup.directory):
                cgroup.kill()
                cgroup.remove()
        _forget(os.path.join(self.root, container_id))
        if record["resctrl"]:
            from wherry_linux import resctrl

            resctrl.leave(record["resctrl"])
        self._run_last_hooks(record["hooks"], public_state(record, "stopped"))

    def _run_last_hooks(self, hooks: Mapping[str, Any], state: dict[str, Any]) -> None:
        """Every poststop hook: the container is gone, whatever becomes of them."""
        state.pop("pid", None)
        for hook in hooks.get("poststop") or ():
            from wherry_linux.hooks import run_hooks

            try:
                run_hooks([hook], "poststop", state)
            except WherryError as error:
                self.warn(str(error))

    def pause(self, container_id: str) -> None:
        """Freeze every process of the container."""
        self._freeze(container_id, frozen=True)

    def resume(self, container_id: str) -> None:
        """Let a paused container go on."""
        self._freeze(container_id, frozen=False)

    def _freeze(self, container_id: str, *, frozen: bool) -> None:
        record = self.record(container_id)
        status, wanted = self.status(record), "running" if frozen else "paused"
        if status != wanted:
            raise Conflict(f"container {container_id} is not {wanted}: it is {status}")
        if not record["cgroup"]:
            raise Conflict(
                f"cannot pause container {container_id}: it has no control group",
                hint="this user's session has no delegated cgroup; `wherry doctor` shows the mend",
            )
        Cgroup(record["cgroup"]).freeze(frozen=frozen)


def _wait_for_program(fifo: int) -> None:
    """Return once the reader of a fifo is gone: it closes when init executes, or ends."""
    poll = select.poll()
    poll.register(fifo, 0)
    poll.poll()


def _print_warning(message: str) -> None:
    print(f"wherry: {message}", file=sys.stderr)


def _forget(directory: str) -> None:
    """Remove a container's state."""
    for name in os.listdir(directory):
        remove_file(os.path.join(directory, name))
    os.rmdir(directory)


def public_state(record: dict[str, Any], status: str) -> dict[str, Any]:
    """runtime-spec "State", from a record."""
    state = {
        "ociVersion": record["ociVersion"],
        "id": record["id"],
        "status": status,
        "bundle": record["bundle"],
        "annotations": record["annotations"],
    }
    if status != "stopped":
        state["pid"] = record["pid"]
    return state


def _forget_zero(spec: Spec) -> None:
    """Before 1.3 a `pids.limit` of 0 was how engines wrote that nothing was asked."""
    resources = (spec.get("linux") or {}).get("resources") or {}
    is_old = str(spec.get("ociVersion")).startswith(("1.0.", "1.1.", "1.2."))
    if is_old and (resources.get("pids") or {}).get("limit") == 0:
        del resources["pids"]


def check_id(container_id: str) -> None:
    """Ids are names of directories."""
    if (
        not container_id
        or container_id in (".", "..")
        or not container_id.isascii()
        or not all(character.isalnum() or character in "_.+-" for character in container_id)
    ):
        raise UsageError(f"invalid container id {container_id!r}")


def frozen_spec(record: dict[str, Any]) -> Spec:
    """The spec that the container of a record was created from."""
    try:
        spec: Spec = read_json(record["config"], SPEC)
    except FileNotFoundError:
        raise NotFound(f"{record['config']} does not exist any more") from None
    spec["process"].setdefault("user", {})
    spec.setdefault("linux", {})
    return spec


def load_spec(bundle: str) -> Spec:
    """The config.json of a bundle, checked as far as the runtime relies on it."""
    bundle = os.path.abspath(bundle)
    try:
        spec: Spec = read_json(os.path.join(bundle, "config.json"))
    except FileNotFoundError:
        raise NotFound(f"bundle {bundle} has no config.json") from None
    from wherry_linux.oci.shape import SPEC, check_shape

    check_shape(spec, SPEC, f"{bundle}/config.json")
    process = spec.get("process")
    if not process or not process.get("args"):
        raise UsageError(f"{bundle}/config.json: process.args is missing")
    if not process.get("cwd", "").startswith("/"):
        raise UsageError(f"{bundle}/config.json: process.cwd is not an absolute path")
    process.setdefault("user", {})
    _forget_zero(spec)
    root = spec.get("root")
    if not root or not root.get("path"):
        raise UsageError(f"{bundle}/config.json: root.path is missing")
    root["path"] = os.path.join(bundle, root["path"])
    if not os.path.isdir(root["path"]):
        raise NotFound(f"root file system {root['path']} does not exist")
    spec.setdefault("linux", {})
    return spec
