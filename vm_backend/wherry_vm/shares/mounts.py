"""The shares of a running machine: each is served here, and mounted by sshfs in the guest.

Where QEMU can be reached by UNIX sockets, sshfs speaks to us through a virtio-serial port
of its own: nothing has to be encrypted on the way, and the mount stays when SSH breaks off.
Elsewhere it is a channel of the SSH connection, and mounted anew with a new connection:
a port of 127.0.0.1 would be anybody's on this host.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time

from wherry.errors import MachineError
from wherry.files import remove_file, write_json
from wherry.values import replace
from wherry_vm.protocol import SHARE_PORT
from wherry_vm.shares.announcing import AnnouncingTree
from wherry_vm.shares.finding import record
from wherry_vm.shares.news import News
from wherry_vm.shares.owners import Owners
from wherry_vm.shares.places import in_order, place
from wherry_vm.shares.server import Server
from wherry_vm.shares.tree import open_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry_vm.machines import Machine, Share
    from wherry_vm.shares.server import Channel

_PATIENCE = 30
"""Seconds for sshfs to start in an emulated guest."""

_CATCH_UP = 1.0

_WINDOW = 8 << 20
_PACKET = 1 << 15

OPTIONS = (
    "passive",
    "allow_other",
    # Links lead to what their text says in the container, as on any file system.
    "no_contain_symlinks",
    # A rename that the host cannot do (onto another of its disks) is one that mv copies.
    "workaround=renamexdev",
    "max_read=65536",
    # How long the guest may believe what it has seen, in directories that are not watched.
    "dcache_timeout=2",
)


class Mounts:
    """The shares of one machine, from its start to its end."""

    def __init__(self, machine: Machine, shares: Sequence[Share]) -> None:
        self._machine = machine
        self.shares = in_order(shares)
        self._changed = threading.Condition()
        self._mounted: frozenset[str] = frozenset()
        self._errors: dict[str, str] = {}
        self._trees: list[tuple[Share, AnnouncingTree]] = []
        self._streams: dict[str, Channel] = {}
        self._news: News | None = None
        self._ports: dict[int, str] = {}

    def attach(self, streams: Sequence[Channel], say: Callable[[dict[str, Any]], None]) -> None:
        """Serve each share on its port, and have the guest's agent mount it."""
        for number, (share, stream) in enumerate(zip(self.shares, streams, strict=True)):
            self._serve(share, stream)
            say(_mount(share, f"{SHARE_PORT}{number}"))
        self._news = News(self._trees, say)

    def plug_in(
        self, open_port: Callable[[int, str, str], Channel], say: Callable[[dict[str, Any]], None]
    ) -> None:
        """Serve what is not mounted any more on new ports.

        `open_port` puts one in the place of another, which it is told by its share's number and
        its identity, and calls it by the name that it is told.
        """
        for share in self.missing():
            number = self.shares.index(share)
            old = self._ports.get(number, f"share{number}")
            generation = int(old.rpartition(".")[2]) + 1 if "." in old else 1
            name = f"{SHARE_PORT}{number}.{generation}"
            stream = open_port(number, old, name)
            self._ports[number] = name
            self._serve(share, stream)
            say(_mount(share, name))

    def connect(self, ssh: Any, say: Callable[[dict[str, Any]], None]) -> None:
        """Serve what is not mounted on channels of the SSH connection, where sshfs is started."""
        for share in self.missing():
            self._serve(share, open_channel(ssh, share))
        if self._news is None:
            self._news = News(self._trees, say)

    def lose(self) -> None:
        """What was mounted through an SSH connection is not any more: that has ended."""
        with self._changed:
            self._mounted = frozenset()

    def missing(self) -> list[Share]:
        """The shares that are not mounted, in order; what is below one has gone with it."""
        with self._changed:
            alive = self._alive()
        gone = [share for share in self.shares if share.target not in alive]
        return [each for each in self.shares if place(each.target, map(_itself, gone)) is not None]

    def _alive(self) -> frozenset[str]:
        """Where something is mounted whose sshfs has not ended."""
        return self._mounted - self._errors.keys()

    def settle(self) -> None:
        """Wait until the guest has mounted all of them, and tell commands."""
        deadline = time.monotonic() + _PATIENCE
        wanted = {share.target: share.source for share in self.shares}
        with self._changed:
            while missing := wanted.keys() - self._alive():
                left = deadline - time.monotonic()
                failed = missing & self._errors.keys()
                if failed or left <= 0:
                    target = min(failed or missing)
                    why = self._errors.get(target) or f"not mounted within {_PATIENCE} s"
                    raise MachineError(
                        f"cannot share {wanted[target]} with the machine: {why}",
                        hint=f"wherry machine restart {self._machine.name}",
                    )
                self._changed.wait(left)
        write_json(
            record(self._machine),
            [[share.source, share.target, share.readonly] for share in self.shares],
        )

    def hear(self, message: dict[str, Any]) -> None:
        """What the agent says of mounts, and of what containers have mounted."""
        if self._news is not None and isinstance(message.get("binds"), list):
            self._news.watch(map(str, message["binds"]))
        if self._news is not None and message.get("event") == "told":
            self._news.told(int(message["number"]))
        with self._changed:
            if isinstance(message.get("mounts"), list):
                self._mounted = frozenset(map(str, message["mounts"]))
            if message.get("event") == "unmounted":
                self._errors[str(message.get("target"))] = str(message.get("error"))
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Let the guest know of what has changed here, before a command looks at it."""
        if self._news is not None:
            self._news.settle(_CATCH_UP)

    def close(self) -> None:
        """Nothing is shared any more."""
        if self._news is not None:
            self._news.close()
        remove_file(record(self._machine))

    def _replace(self, share: Share, tree: AnnouncingTree, stream: Channel) -> None:
        """Let this be the server of a share, and end the one that it had."""
        for number, (other, _) in enumerate(self._trees):
            if other == share:
                self._trees[number] = (share, tree)
                break
        else:
            self._trees.append((share, tree))
        if (old := self._streams.get(share.target)) is not None:
            with contextlib.suppress(OSError, EOFError):
                old.close()
        self._streams[share.target] = stream

    def _serve(self, share: Share, stream: Channel) -> None:
        owners = Owners(self._machine.file("owners.db"), share.source)
        try:
            tree = AnnouncingTree(open_tree(share.source, owners, readonly=share.readonly))
        except OSError as error:
            raise MachineError(f"cannot share {share.source}: {error.strerror}") from error
        with self._changed:
            self._errors.pop(share.target, None)
            self._mounted -= {share.target}
        self._replace(share, tree, stream)
        threading.Thread(
            target=_run, args=(Server(stream, tree), tree), daemon=True, name="share"
        ).start()


def open_channel(ssh: Any, share: Share) -> Any:
    """A channel of an SSH connection, at whose end a share is mounted. Raises MachineError."""
    from wherry_vm.ssh import ssh_errors

    with ssh_errors(f"mount {share.target} in the machine"):
        channel = ssh.open_session(window_size=_WINDOW, max_packet_size=_PACKET)
        channel.exec_command(command(share))
    return channel


def _mount(share: Share, port: str) -> dict[str, Any]:
    """What has the agent mount a share whose server is at a port."""
    return {"op": "mount", "target": share.target, "port": port, "options": options(share)}


def _itself(share: Share) -> Share:
    """The guest's own view of a share, for `place`."""
    return replace(share, source=share.target)


def options(share: Share) -> str:
    """What sshfs is told by -o."""
    return ",".join((*OPTIONS, *(("ro",) if share.readonly else ())))


def command(share: Share) -> str:
    """What mounts a share in the guest, where the other side of SFTP is its standard streams."""
    target = shlex.quote(share.target)
    return (
        f"umount -l {target} 2>/dev/null; "
        f"mkdir -p {target} && exec sshfs :/ {target} -f -o {options(share)}"
    )


def _run(server: Server, tree: Any) -> None:
    try:
        server.run()
    finally:
        tree.close()
