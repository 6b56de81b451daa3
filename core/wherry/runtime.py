"""What core asks of the system that carries containers: the seam below the engine."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from wherry.container.bundle import HostDevice
    from wherry.container.spec import ProcessIdentity
    from wherry.container.store import Container
    from wherry.container.wire import Connection
    from wherry.errors import NoUserNamespace
    from wherry.files import Lock
    from wherry.oci.runtime_spec import (
        IDMapping,
        LinuxResources,
        LinuxSeccomp,
        Mount,
        Process,
        Spec,
    )

    class Keeper(Protocol):
        """What a container's monitor leaves to the engine."""

        def prepare(self, container: Container, refusal: NoUserNamespace | None = None) -> Spec:
            """The config.json of the container's next run.

            After a `refusal` without a user namespace; raises it where that would not do.
            """

        def connect(self, container: Container, pid: int) -> list[dict[str, Any]]:
            """Give the created container its network; what its monitor has to serve for it."""

        def change_network(
            self, container: Container, pid: int, message: Mapping[str, Any]
        ) -> tuple[list[dict[str, Any]], list[str]]:
            """Change the network of a running container; what is to be served, and no longer."""

        def disconnect(self, container: Container) -> None:
            """Take back what `connect` gave. Safe to call twice."""

        def ended(self, container: Container) -> None:
            """Take back what `prepare` and `connect` gave. Safe to call twice."""

        def remove(self, container: Container) -> None:
            """Remove the container, and the anonymous volumes that are its own."""

    class HostNetwork(Protocol):
        """What is asked of the host for networks: dicts are those of wherry.network.endpoints."""

        def used(self) -> AbstractContextManager[object]:
            """To hold from `ensure` until a container is on the network.

            Without root the bridges are in a namespace that goes when nobody uses it.
            """

        def left(self) -> None:
            """A container is on no network any more. Safe to call at any time."""

        def subnets(self) -> list[str]:
            """The subnets that the host has a way to."""

        def ensure(self, bridge: dict[str, Any]) -> bool:
            """Have a network's bridge; whether all that was made for others is gone.

            Raises Unsupported where there can be none.
            """

        def remove(self, bridge: dict[str, Any]) -> None:
            """Remove a network's bridge. Safe to call twice."""

        def attach(self, pid: int, endpoints: Sequence[dict[str, Any]]) -> None:
            """Connect the network namespace of process `pid` to bridges that are there."""

        def renew(
            self,
            pid: int,
            endpoints: Sequence[dict[str, Any]],
            targets: Sequence[dict[str, Any]],
        ) -> None:
            """Make anew what a container has that runs, after `ensure` has said that it is gone."""

        def route(self, pid: int, endpoints: Sequence[dict[str, Any]]) -> None:
            """Make the way out that of the endpoint that says so."""

        def detach(self, endpoint: dict[str, Any]) -> None:
            """Take an interface away from a container that runs on. Safe to call twice."""

        def hold(
            self, bindings: dict[str, Any], busy: Collection[tuple[str, int]] = ()
        ) -> list[dict[str, Any]]:
            """Bind ports of the host, all or none, and none that is known to be `busy`, as
            (protocol, port). Raises Conflict for one that is."""

        def let_go(self, published: Sequence[dict[str, Any]]) -> None:
            """Close what `hold` has bound."""

        def targets(
            self, published: Sequence[dict[str, Any]], endpoints: Sequence[dict[str, Any]]
        ) -> list[dict[str, Any]]:
            """Where what comes for the ports is to go."""

        def publish(
            self, targets: Sequence[dict[str, Any]], endpoints: Sequence[dict[str, Any]]
        ) -> None:
            """Let it go there; the container is on the network by these endpoints."""

        def withdraw(self, targets: Sequence[dict[str, Any]]) -> None:
            """Take back what `publish` did. Safe to call twice."""

        def services(
            self,
            published: Sequence[dict[str, Any]],
            endpoints: Sequence[dict[str, Any]],
            pid: int,
        ) -> list[dict[str, Any]]:
            """What the monitor of the container of process `pid` has to serve for the ports."""

        def resolver(self, container: Container, pid: int) -> dict[str, Any]:
            """What it has to serve for the names of other containers."""

        def addresses(self, endpoints: Sequence[dict[str, Any]]) -> list[str]:
            """The host's addresses, as the container reaches it by these endpoints."""

    class Runtime(Protocol):
        """A Linux that runs containers."""

        # ---- what there is ----

        def is_rootless(self) -> bool:
            """Whether containers are made without root's privileges."""

        def runs_programs_of(self, architecture: str) -> bool:
            """Whether containers run programs of this processor, as images call it."""

        def namespaces(self) -> Sequence[str]:
            """The kinds of namespaces that the kernel has."""

        def namespace_numbers(self, pid: int | None = None) -> dict[str, str]:
            """The namespaces of a process, or of the host, by their inode numbers."""

        def id_maps(self, mode: str) -> tuple[list[IDMapping], list[IDMapping]] | None:
            """The maps for `--userns MODE`; None for no user namespace."""

        def id_ranges(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
            """The (first, how many) user and group ids that `--userns auto` may lease."""

        def kept_user(self, mode: str) -> str:
            """`UID:GID`, within, of the user that `--userns keep-id…` keeps."""

        def cgroup_path(self, container_id: str, parent: str) -> str | None:
            """The control group for a new container; None where none can be made."""

        def missing_controllers(
            self, resources: LinuxResources, group: str | None
        ) -> Sequence[str]:
            """What limits of a control group need and the host has not got.

            Controllers, and files ("io.weight") that the controller is without.
            """

        def processors(self, group: str | None) -> tuple[str, str]:
            """The CPUs and memory nodes that a control group can have: "0-3", "0"."""

        def cgroup_version(self) -> str:
            """The version of control groups that limits are of: "2", or "1" where ours is none."""

        def capabilities(self) -> Sequence[str] | None:
            """What we may give to a container without a user namespace; None for all."""

        def resolve_seccomp(
            self, profile: Mapping[str, Any] | None, capabilities: Sequence[str]
        ) -> LinuxSeccomp:
            """A profile in docker's format, or the default one, in runtime-spec's form."""

        def filter_length(self, seccomp: LinuxSeccomp) -> int:
            """The number of instructions that a section compiles to."""

        def device(self, path: str, inside: str, access: str) -> list[HostDevice]:
            """The device, or the devices below a directory. Raises NotFound."""

        def all_devices(self) -> list[HostDevice]:
            """What `--privileged` gives."""

        def diagnose(self) -> list[dict[str, str]]:
            """What works here and what does not: Subject, Verdict, Text, Mend, Who."""

        def end_with_parent(self, number: int) -> None:
            """Have this process sent a signal when its parent ends, however it ends."""

        # ---- work on files ----

        def unshared(
            self,
            function: Callable[[], Any],
            *,
            mounts: bool = False,
            maps: tuple[list[IDMapping], list[IDMapping]] | None = None,
        ) -> Any:
            """`function()` where container ids are our own; its result crosses as JSON.

            `mounts` gives it a mount namespace that ends with it. `maps` are those of a
            container whose ids are not everybody's; files of ours can be reached all the same.
            """

        def mount_overlay(self, lower: Sequence[str], upper: str, work: str, target: str) -> None:
            """Mount an overlay: within `unshared(mounts=True)`, or for the host to see."""

        def unmount(self, target: str) -> None:
            """Undo a mount of the host's."""

        def mount_into(self, root: int, entry: Mount) -> None:
            """Make a mount below the directory that `root` holds, following no link out of it."""

        def open_in_root(self, root: int, path: str, *, create: str = "", flags: int = ...) -> int:
            """A descriptor of `path` with `root` as the root directory, whatever links there are.

            `create`, "directory" or "file", makes what is missing. Raises KernelError.
            """

        def in_container(self, container: Container, function: Callable[[int], Any]) -> Any:
            """`function()` of a running container's root directory, with its ids as our own.

            The process stays in our own mount namespace and root: nothing of the
            container's is loaded or followed.
            """

        # ---- containers ----

        def launch(
            self,
            container: Container,
            spec: Spec,
            keeper: Keeper,
            lock: Lock,
            attach: Mapping[str, Any] | None = None,
        ) -> Connection:
            """Start a container under a monitor of its own; `attach` names its streams to carry.

            Returns once it runs, connected to its monitor; raises what kept it from running.
            """

        def network(self) -> HostNetwork:
            """The host's networking: root's bridges, or those of a user's own namespace."""

        def connect_network(
            self, container: Container, pid: int
        ) -> tuple[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]:
            """Connect process `pid` to the default network in user mode.

            What it publishes ("Helped" where the helper does that), the helper's record, and
            what the container's monitor has to serve.
            """

        def addresses(self, pid: int) -> Sequence[str]:
            """The addresses of the network namespace of a process, beside those of loopback."""

        def disconnect_network(self, run_directory: str, helper: dict[str, Any] | None) -> None:
            """Take back what `connect_network` made for who has the run directory."""

        def catches(self, pid: int, number: int) -> bool:
            """Whether a process does something about a signal, and is not just ended by it."""

        def this_process(self) -> ProcessIdentity:
            """Who asks."""

        def is_running(self, process: ProcessIdentity) -> bool:
            """Whether that very process is still there."""

        def is_supervised(self, container: Container) -> bool:
            """Whether the monitor that the container's state names is alive."""

        def end_monitor(self, container: Container) -> None:
            """Kill the container's monitor, and the container with it."""

        def discard(self, container_id: str) -> None:
            """End and remove what is left in the kernel of a container without a monitor."""

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
            """Run one more process in a running container; its exit code, 0 if detached.

            `user` is looked up in the container; `on_terminal` relays the master side of
            the terminal of a process that has one; `on_started` is called with the pid,
            before the end is waited for; `stdio` takes the place of ours. The pipes `given`
            are the process's alone: its user becomes their owner.
            """

        def processes(self, container: Container) -> list[int]:
            """The pids, on the host, of a running container's processes."""

        def process_table(self, container: Container) -> tuple[list[str], list[list[str]]]:
            """The titles and rows of `ps -ef` for a running container."""

        def usage(self, container: Container) -> dict[str, Any]:
            """What a running container uses at this moment, in the form of docker's /stats."""

        def limit(self, container: Container, resources: LinuxResources) -> None:
            """Put other limits on a running container. Raises Unsupported."""

        def watch(self, paths: Sequence[str]) -> Callable[[float], bool]:
            """A function that waits (seconds, -1 for ever) until one of the files changes."""
