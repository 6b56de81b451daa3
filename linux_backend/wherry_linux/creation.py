"""The runtime's `create`: a container that is whole but for its program, or nothing of it."""

from __future__ import annotations

import os

from wherry.errors import KernelError
from wherry.files import write_json
from wherry.forked import start
from wherry_linux import constants as c
from wherry_linux import idmap
from wherry_linux.cgroups import Cgroup
from wherry_linux.channel import Channel
from wherry_linux.group_places import enter_scope
from wherry_linux.init import Launch, stage_one
from wherry_linux.mounts import is_idmapped
from wherry_linux.namespaces import Plan
from wherry_linux.process import exec_error, set_limits
from wherry_linux.processes import start_time
from wherry_linux.syscalls import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.oci.runtime_spec import Mount, Spec


class Created:
    """A container whose first process waits for `start`."""

    def __init__(self, pid: int, channel: Channel, terminal: int, program: str) -> None:
        self.pid = pid
        self.program = program
        self.terminal = terminal
        self.channel = channel

    def started(self) -> None:
        """Return once the program runs. Raises what kept it from running."""
        try:
            message, _ = self.channel.receive()
            if "errno" in message:
                raise exec_error(self.program, message["errno"])
        finally:
            self.channel.close()


class Creation:
    """A container on its way, and what there is of it so far."""

    def __init__(
        self,
        directory: str,
        state: dict[str, Any],
        spec: Spec,
        *,
        supervise: bool,
        freeze: bool,
    ) -> None:
        """`directory` is there, and its own; `state` is kept up to date. See Runtime.create."""
        self._directory = directory
        self._state = state
        self._spec = spec
        self._supervise = supervise
        self._freeze = freeze
        self._fifo = os.path.join(directory, "exec.fifo")
        self._cgroup: Cgroup | None = None
        self._channel: Channel | None = None
        self._pid = 0
        self._resctrl: list[str] = []
        # Whether hooks may have made something, which those at the end undo.
        self.is_hooked = False

    def make(
        self,
        *,
        stdio: tuple[int, int, int] | None,
        console_socket: Any,
        pid_file: str | None,
        preserve: int,
        new_keyring: bool,
        pivot: bool,
    ) -> Created:
        """Make it. Where this raises, `undo` has to follow."""
        spec, state = self._spec, self._state
        self._make_group()
        plan, has_idmapped = self._plan()
        is_nested = os.geteuid() != 0 and (
            plan.outer >= 0 or (plan.makes("user") and not _maps_caller(spec))
        )
        launch = Launch(
            spec=spec,
            state=state,
            fifo=self._fifo,
            plan=plan,
            stdio=stdio,
            console_socket=console_socket,
            preserve=preserve,
            new_keyring=new_keyring,
            pivot=pivot,
            die_with_parent=self._supervise,
            place=self._directory if has_idmapped or is_nested else "",
            is_nested=is_nested,
        )
        channel = self._start(launch)
        set_limits(spec["process"], self._pid)
        self._resctrl = _give(spec, state["id"], self._pid)
        self._run_hooks()
        channel.send({"go": True, "pid": self._pid})
        terminal = -1
        if spec["process"].get("terminal") and console_socket is None:
            _, terminal = channel.expect("console")
        channel.expect("created")
        state["status"] = "created"
        self._write_state()
        if pid_file:
            with open(pid_file, "w") as file:
                file.write(str(self._pid))
        return Created(self._pid, channel, terminal, spec["process"]["args"][0])

    def undo(self) -> None:
        """Leave nothing behind but the directory."""
        if self._pid:
            _end(self._pid, ours=self._supervise)
        if self._channel is not None:
            self._channel.close()
        if self._cgroup is not None:
            self._cgroup.kill()
            self._cgroup.remove()
        if self._resctrl:
            from wherry_linux import resctrl

            resctrl.leave(self._resctrl)

    def _make_group(self) -> None:
        spec = self._spec
        self._cgroup = cgroup = _own_group(spec)
        if cgroup is not None:
            enter_scope(cgroup.path)
        # Before anything is made, so that what a kill leaves can be found.
        self._write_state()
        if self._freeze:
            write_json(os.path.join(self._directory, "config.json"), spec)
        os.mkfifo(self._fifo, 0o600)
        if cgroup is not None:
            cgroup.make()
            cgroup.count()
            cgroup.limit(spec["linux"].get("resources") or {})
            _delegate(spec, cgroup)
        restrict_devices(spec, cgroup)

    def _plan(self) -> tuple[Plan, bool]:
        """The namespaces, and whether there are idmapped mounts."""
        linux = self._spec["linux"]
        plan = Plan(linux.get("namespaces") or [])
        has_idmapped = any(map(is_idmapped, self._spec.get("mounts") or ()))
        if has_idmapped:
            plan.prepare_users(linux.get("uidMappings") or [], linux.get("gidMappings") or [])
        return plan, has_idmapped

    def _start(self, launch: Launch) -> Channel:
        """Start its first process, which waits; the channel to it."""
        if self._supervise:
            prctl(c.PR_SET_CHILD_SUBREAPER, 1)
        self._channel, theirs = ends = Channel.pair()
        fork = start if self._cgroup is None else self._cgroup.start
        stage = fork(lambda: stage_one(launch, *ends))
        theirs.close()
        launch.plan.close()
        self._pid = self._state["pid"] = self._guide(self._channel, stage, launch)
        return self._channel

    def _guide(self, channel: Channel, stage: int, launch: Launch) -> int:
        """See stage one through to its end; the pid of init, which it has forked."""
        try:
            channel.expect("namespaces")
            if launch.plan.makes("user"):
                linux = self._spec["linux"]
                maps = linux.get("uidMappings") or [], linux.get("gidMappings") or []
                if launch.is_nested:
                    maps = idmap.rootless_maps(os.geteuid(), os.getegid())
                idmap.write_maps(stage, *maps)
            channel.send({"go": True})
            message, _ = channel.expect("pid")
            return int(message["pid"])
        except BaseException:
            os.kill(stage, 9)
            raise
        finally:
            os.waitpid(stage, 0)

    def _run_hooks(self) -> None:
        hooks = self._spec.get("hooks") or {}
        self.is_hooked = True
        for kind in ("prestart", "createRuntime"):
            if hooks.get(kind):
                from wherry_linux.hooks import run_hooks

                run_hooks(hooks[kind], kind, self._state)

    def _write_state(self) -> None:
        import time

        state, spec = self._state, self._spec
        place = self._directory if self._freeze else state["bundle"]
        write_json(
            os.path.join(self._directory, "state.json"),
            {
                **state,
                "startTime": start_time(state["pid"]) if state["pid"] else None,
                "created": time.time(),
                "cgroup": None if self._cgroup is None else self._cgroup.path,
                "resctrl": self._resctrl,
                "hooks": {
                    kind: hooks
                    for kind, hooks in (spec.get("hooks") or {}).items()
                    if kind in ("poststart", "poststop")
                },
                "rootfs": spec["root"]["path"],
                "owner": os.geteuid(),
                "config": os.path.join(place, "config.json"),
            },
        )


def _own_group(spec: Spec) -> Cgroup | None:
    """The control group that the spec asks for. Raises Conflict where it is somebody else's."""
    path = spec["linux"].get("cgroupsPath")
    if not path:
        return None
    cgroup = Cgroup(path)
    cgroup.require_empty()
    return cgroup


def _delegate(spec: Spec, cgroup: Cgroup) -> None:
    from wherry_linux.delegation import delegate, owner_of

    owner = owner_of(spec)
    if owner is not None:
        delegate(cgroup.directory, owner)


def _give(spec: Spec, container_id: str, pid: int) -> list[str]:
    """What a container gets once its first process is there; directories for `resctrl.leave`."""
    devices, rdt = spec["linux"].get("netDevices"), spec["linux"].get("intelRdt")
    if devices:
        from wherry_linux.network.devices import move_devices

        move_devices(devices, pid)
    if rdt:
        from wherry_linux import resctrl

        return resctrl.join(rdt, container_id, pid, resctrl.mount_point())
    return []


def _end(pid: int, *, ours: bool) -> None:
    """Kill a container's first process; unless it is ours, others may have waited for it."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
    if ours:
        os.waitpid(pid, 0)


def _maps_caller(spec: Spec) -> bool:
    """Whether we ourselves exist in the container's user namespace."""
    linux = spec["linux"]
    return idmap.has_host(linux.get("uidMappings") or [], os.geteuid()) and idmap.has_host(
        linux.get("gidMappings") or [], os.getegid()
    )


def restrict_devices(spec: Spec, cgroup: Cgroup | None) -> None:
    """Make the rules about devices hold; where the kernel cannot, do without any device.

    In a user namespace the kernel opens no node that was made there, so that those which
    come from the host are all there is: the devices of the spec, which are allowed, and
    what is in directories that are bound.
    """
    rules = (spec["linux"].get("resources") or {}).get("devices") or []
    if not rules or os.geteuid() != 0:
        return
    has_users = any(namespace["type"] == "user" for namespace in spec["linux"]["namespaces"])
    is_whole = all(rule.get("access", "rwm") == "rwm" for rule in rules)
    if has_users and is_whole and not any(map(_may_bring_nodes, spec.get("mounts") or ())):
        return
    from wherry_linux import device_filter

    try:
        if cgroup is not None:
            device_filter.restrict(cgroup.directory, rules)
            return
    except KernelError:
        pass  # a kernel without CONFIG_CGROUP_BPF, or a container around us
    if not has_users and device_filter.evaluate(rules) != (True, {}):
        sets: dict[str, Any] = dict(spec["process"].get("capabilities") or {})
        for kind, names in sets.items():
            sets[kind] = [name for name in names if name != "CAP_MKNOD"]
        spec["process"]["capabilities"] = sets  # type: ignore[typeddict-item]
        from wherry_linux.rootfs import root_mount

        over = root_mount(spec)
        if over is not None:
            over.setdefault("options", []).append("nodev")


def _may_bring_nodes(entry: Mount) -> bool:
    """Whether there may be nodes of the host's in a mount; one file that is no node has none."""
    options = set(entry.get("options") or ())
    return (
        bool(options & {"bind", "rbind"})
        and "nodev" not in options
        and not os.path.isfile(entry.get("source", ""))
    )
