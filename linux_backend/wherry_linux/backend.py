"""This kernel as wherry's Runtime (wherry.runtime): the backend that runs commands here."""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.wire import Connection
from wherry.errors import CorruptState, Unsupported, WherryError
from wherry.files import claim_directory, make_dir
from wherry.lean import signals, sockets
from wherry_linux.processes import boot_id, is_alive, signal, start_time, wait_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.backend import Command
    from wherry.container.bundle import HostDevice
    from wherry.container.spec import ProcessIdentity
    from wherry.container.store import Container
    from wherry.engine import Engine
    from wherry.files import Lock
    from wherry.oci.runtime_spec import (
        IDMapping,
        LinuxResources,
        LinuxSeccomp,
        Mount,
        Process,
        Spec,
    )
    from wherry.runtime import Keeper
    from wherry_linux.network.host import LinuxNetwork
    from wherry_linux.runtime import Runtime


class LinuxBackend:
    """Carries commands out in this process."""

    def execute(self, command: Command) -> int:
        if command.works_without_places:
            from wherry.engine import Engine

            return command.action(Engine(LinuxRuntime()))
        return command.action(self.engine())

    def engine(self) -> Engine:
        from wherry.engine import Engine

        claim_directory(paths.data())
        claim_directory(paths.run())
        return Engine(LinuxRuntime())


def load() -> LinuxBackend:
    """The backend, for wherry.backend."""
    return LinuxBackend()


class LinuxRuntime:
    """This kernel, for an Engine.

    What a method needs is imported there: `ps` makes no namespaces.
    """

    def __init__(self) -> None:
        self._oci: Runtime | None = None
        self._monitors: list[int] = []

    @property
    def oci(self) -> Runtime:
        """The OCI runtime of our own containers."""
        if self._oci is None:
            from wherry_linux.runtime import Runtime

            self._oci = Runtime(paths.runtime())
        return self._oci

    # ---- what there is ----

    def is_rootless(self) -> bool:
        return os.geteuid() != 0

    def runs_programs_of(self, architecture: str) -> bool:
        from wherry_linux import emulators

        return emulators.runs(architecture)

    def namespaces(self) -> Sequence[str]:
        from wherry_linux import namespaces

        return [kind for kind in namespaces.KINDS if namespaces.is_supported(kind)]

    def namespace_numbers(self, pid: int | None = None) -> dict[str, str]:
        from wherry_linux import namespaces

        return namespaces.numbers("self" if pid is None else pid)

    def id_maps(self, mode: str) -> tuple[list[IDMapping], list[IDMapping]] | None:
        from wherry.container.userns import read_kept
        from wherry_linux import idmap

        uid, gid = os.geteuid(), os.getegid()
        if uid == 0:
            return idmap.identity_maps()
        uid_maps, gid_maps = idmap.rootless_maps(uid, gid)
        if mode == "nomap":
            return idmap.without_own(uid_maps), idmap.without_own(gid_maps)
        if mode.startswith("keep-id"):
            inside_uid, inside_gid = read_kept(mode, uid, gid)
            return (
                idmap.keep_id(uid_maps, uid, inside_uid),
                idmap.keep_id(gid_maps, gid, inside_gid),
            )
        return uid_maps, gid_maps

    def id_ranges(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        from wherry_linux.idmap import leasable

        return leasable("/etc/subuid"), leasable("/etc/subgid")

    def kept_user(self, mode: str) -> str:
        from wherry.container.userns import read_kept

        uid, gid = read_kept(mode, os.geteuid(), os.getegid())
        return f"{uid}:{gid}"

    def cgroup_path(self, container_id: str, parent: str) -> str | None:
        from wherry_linux.group_places import place_for

        return place_for(container_id, parent)

    def missing_controllers(self, resources: LinuxResources, group: str | None) -> list[str]:
        from wherry_linux.cgroups import controllers_for, missing_files
        from wherry_linux.limits import OPTIONAL_FILES, controllers_of, files_of

        wanted = controllers_of(resources)
        if not wanted:
            return []
        missing = wanted - controllers_for(group)
        doubtful = {
            name
            for name in files_of(resources) & OPTIONAL_FILES
            if name.partition(".")[0] not in missing
        }
        if doubtful:
            missing |= missing_files(group, doubtful)
        return sorted(missing)

    def processors(self, group: str | None) -> tuple[str, str]:
        from wherry_linux.cgroups import processors_for

        return processors_for(group)

    def cgroup_version(self) -> str:
        from wherry_linux.cgroups import version

        return version()

    def capabilities(self) -> Sequence[str] | None:
        from wherry_linux.capabilities import names_of, permitted

        return names_of(permitted())

    def resolve_seccomp(
        self, profile: Mapping[str, Any] | None, capabilities: Sequence[str]
    ) -> LinuxSeccomp:
        from wherry_linux.seccomp.resolve import resolve

        return resolve(profile, capabilities)

    def filter_length(self, seccomp: LinuxSeccomp) -> int:
        from wherry_linux.seccomp import instruction_count

        return instruction_count(seccomp)

    def device(self, path: str, inside: str, access: str) -> list[HostDevice]:
        from wherry_linux.devices import find

        return find(path, inside, access)

    def all_devices(self) -> list[HostDevice]:
        from wherry_linux.devices import everything

        return everything(openable=self.is_rootless())

    def diagnose(self) -> list[dict[str, str]]:
        from wherry_linux.doctor import as_json, findings

        return as_json(findings())

    # ---- work on files ----

    def end_with_parent(self, number: int) -> None:
        from wherry_linux.constants import PR_SET_PDEATHSIG
        from wherry_linux.syscalls import prctl

        prctl(PR_SET_PDEATHSIG, number)

    def unshared(
        self,
        function: Callable[[], Any],
        *,
        mounts: bool = False,
        maps: tuple[list[IDMapping], list[IDMapping]] | None = None,
    ) -> Any:
        from wherry_linux.userns import run_unshared

        return run_unshared(function, mounts=mounts, maps=maps)

    def mount_overlay(self, lower: Sequence[str], upper: str, work: str, target: str) -> None:
        from wherry.container.overlay import overlay_mount
        from wherry_linux.mounts import Options
        from wherry_linux.overlay import mount_overlay

        if not upper and len(lower) == 1:
            # overlayfs wants two directories at least.
            lower = [*lower, make_dir(os.path.join(paths.layers(), "empty"), 0o755)]
        entry = overlay_mount(target, lower, upper=upper, work=work)
        mount_overlay(Options(entry["options"]), target)

    def unmount(self, target: str) -> None:
        from wherry_linux.syscalls import umount2

        umount2(target)

    def mount_into(self, root: int, entry: Mount) -> None:
        from wherry_linux.mounts import is_idmapped, mount_into

        if not is_idmapped(entry):
            mount_into(root, entry)
            return
        from wherry_linux.idmapped import mount_mapped

        mount_mapped(root, entry)

    def open_in_root(
        self, root: int, path: str, *, create: str = "", flags: int = os.O_PATH
    ) -> int:
        from wherry_linux.mounts import open_in_root

        return open_in_root(root, path, create=create, flags=flags)

    def in_container(self, container: Container, function: Callable[[int], Any]) -> Any:
        from wherry_linux.trees import in_container

        return in_container(container.state["Pid"], function)

    # ---- containers ----

    def launch(
        self,
        container: Container,
        spec: Spec,
        keeper: Keeper,
        lock: Lock,
        attach: Mapping[str, Any] | None = None,
    ) -> Connection:
        from wherry.forked import start

        self._reap_monitors()
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_STREAM)

        def be_monitor() -> None:
            from wherry_linux.monitor import Monitor

            ours.close()
            Monitor(container, self.oci, keeper).run(theirs, spec, lock.fileno(), attach or {})

        monitor = start(be_monitor)
        theirs.close()
        self._monitors.append(monitor)
        connection = Connection(ours)
        try:
            connection.greeting = connection.expect("started")
        except WherryError:
            connection.close()
            self._end_monitor(monitor)
            raise
        except BaseException:
            # The user has had enough: what is half made goes with its monitor.
            connection.close()
            os.kill(monitor, signals.SIGKILL)
            self._end_monitor(monitor)
            self.discard(container.id)
            raise
        return connection

    def _end_monitor(self, monitor: int) -> None:
        self._monitors.remove(monitor)
        os.waitpid(monitor, 0)

    def _reap_monitors(self) -> None:
        """Forget the monitors that have ended: a program that uses us may live for long."""
        for monitor in list(self._monitors):
            try:
                if not os.waitpid(monitor, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                pass
            self._monitors.remove(monitor)

    def network(self) -> LinuxNetwork:
        from wherry_linux.network.host import LinuxNetwork, UserNetwork

        return UserNetwork() if self.is_rootless() else LinuxNetwork()

    def connect_network(
        self, container: Container, pid: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]:
        from wherry_linux.network.usermode import connect

        return connect(container, pid)

    def addresses(self, pid: int) -> Sequence[str]:
        from wherry_linux.network.addresses import addresses

        return addresses(pid)

    def disconnect_network(self, run_directory: str, helper: dict[str, Any] | None) -> None:
        from wherry_linux.network.usermode import disconnect

        disconnect(run_directory, helper)

    def catches(self, pid: int, number: int) -> bool:
        from wherry_linux.processes import catches

        return catches(pid, number)

    def this_process(self) -> ProcessIdentity:
        pid = os.getpid()
        return {"Pid": pid, "StartTime": start_time(pid) or 0, "BootId": boot_id()}

    def is_running(self, process: ProcessIdentity) -> bool:
        return process["BootId"] == boot_id() and is_alive(process["Pid"], process["StartTime"])

    def is_supervised(self, container: Container) -> bool:
        state = container.state
        return bool(state.get("MonitorPid")) and self.is_running(
            {
                "Pid": state["MonitorPid"],
                "StartTime": state["MonitorStart"],
                "BootId": state["BootId"],
            }
        )

    def end_monitor(self, container: Container) -> None:
        state = container.state
        if self.is_supervised(container):
            signal(state["MonitorPid"], state["MonitorStart"], signals.SIGKILL)
            wait_gone(state["MonitorPid"], state["MonitorStart"], 10)

    def discard(self, container_id: str) -> None:
        try:
            self.oci.delete(container_id, force=True)
        except FileNotFoundError:
            pass  # somebody else does so at this moment
        except CorruptState:
            # Its first process has ended with its monitor; others are in its control group.
            from wherry.container.copy import remove_tree
            from wherry_linux.cgroups import Cgroup

            path = self.cgroup_path(container_id, "")
            if path and os.path.isdir(Cgroup(path).directory):
                Cgroup(path).kill()
                Cgroup(path).remove()
            remove_tree(os.path.join(paths.runtime(), container_id))

    def execute(
        self,
        container: Container,
        process: Process,
        *,
        user: str,
        detach: bool,
        stdin: bool,
        on_terminal: Callable[[int], object],
        on_started: Callable[[int], None] | None = None,
        stdio: tuple[int, int, int] | None = None,
        given: Sequence[int] = (),
    ) -> int:
        from wherry_linux.joining import execute

        if detach and stdio is None:
            # Who captures our output must not have to wait for the program's end, and a
            # terminal whose other side nobody holds would hang up on it.
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            stdio, process = (null, null, null), {**process, "terminal": False}
        return execute(
            self.oci,
            container.id,
            process,
            user=user,
            detach=detach,
            stdin=stdin,
            on_terminal=on_terminal,
            on_started=on_started,
            stdio=stdio,
            given=given,
        )

    def processes(self, container: Container) -> list[int]:
        from wherry_linux.cgroups import Cgroup

        record = self.oci.record(container.id)
        if record["cgroup"]:
            return Cgroup(record["cgroup"]).processes()
        from wherry_linux.processes import in_same_pid_namespace

        return in_same_pid_namespace(record["pid"])

    def process_table(self, container: Container) -> tuple[list[str], list[list[str]]]:
        from wherry_linux.process_table import TITLES, rows

        return TITLES, rows(self.processes(container))

    def usage(self, container: Container) -> dict[str, Any]:
        from wherry_linux.usage import usage

        record = self.oci.record(container.id)
        return usage(record["cgroup"] or "", record["pid"])

    def limit(self, container: Container, resources: LinuxResources) -> None:
        path = self.oci.record(container.id)["cgroup"]
        if not path:
            raise Unsupported(
                f"cannot limit container {container.name}: it has no control group",
                hint="`wherry doctor` tells why",
            )
        from wherry_linux.cgroups import Cgroup

        Cgroup(path).limit(resources)

    def watch(self, paths: Sequence[str]) -> Callable[[float], bool]:
        from wherry_linux.inotify import watch

        return watch(paths)
