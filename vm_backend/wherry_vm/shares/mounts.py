"""The shares of a running machine: each is served here, and mounted by sshfs in the guest.

Where QEMU can be reached by UNIX sockets, sshfs speaks to us through a virtio-serial port
of its own: nothing has to be encrypted on the way, and the mount stays when SSH breaks off.
Elsewhere it is a channel of the SSH connection, and mounted anew with a new connection:
a port of 127.0.0.1 would be anybody's on this host.
"""

from __future__ import annotations

import os
import shlex
import threading
import time

from wherry.errors import MachineError
from wherry.files import remove_file, write_json
from wherry_vm.shares.announcing import AnnouncingTree
from wherry_vm.shares.finding import record
from wherry_vm.shares.news import News
from wherry_vm.shares.owners import Owners
from wherry_vm.shares.places import in_order
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

PORT = "org.wherry.share."


class Mounts:
    """The shares of one machine, from its start to its end."""

    def __init__(self, machine: Machine, shares: Sequence[Share]) -> None:
        self._machine = machine
        self.shares = in_order(shares)
        self._changed = threading.Condition()
        self._mounted: frozenset[str] = frozenset()
        self._errors: dict[str, str] = {}
        self._trees: list[tuple[Share, AnnouncingTree]] = []
        self._news: News | None = None

    def check(self) -> None:
        """Raises MachineError for a share that is no directory."""
        for share in self.shares:
            if not os.path.isdir(share.source):
                raise MachineError(
                    f"cannot share {share.source}: no such directory",
                    hint=f"wherry machine set --share DIR {self._machine.name}",
                )

    def attach(self, streams: Sequence[Channel], say: Callable[[dict[str, Any]], None]) -> None:
        """Serve each share on its port, and have the guest's agent mount it."""
        for number, (share, stream) in enumerate(zip(self.shares, streams, strict=True)):
            self._serve(share, stream)
            say(
                {
                    "op": "mount",
                    "target": share.target,
                    "port": f"{PORT}{number}",
                    "options": options(share),
                }
            )

        self._news = News(self._trees, say)

    def connect(self, ssh: Any, say: Callable[[dict[str, Any]], None]) -> None:
        """Serve each share on a channel of the SSH connection, where sshfs is started."""
        for share in self.shares:
            self._serve(share, open_channel(ssh, share))
        self._news = News(self._trees, say)

    def settle(self) -> None:
        """Wait until the guest has mounted all of them, and tell commands."""
        deadline = time.monotonic() + _PATIENCE
        wanted = {share.target: share.source for share in self.shares}
        with self._changed:
            while missing := wanted.keys() - self._mounted:
                left = deadline - time.monotonic()
                failed = missing & self._errors.keys()
                if failed or left <= 0:
                    target = min(failed or missing)
                    why = self._errors.get(target) or f"not mounted within {_PATIENCE} s"
                    raise MachineError(f"cannot share {wanted[target]} with the machine: {why}")
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

    def _serve(self, share: Share, stream: Channel) -> None:
        owners = Owners(self._machine.file("owners.db"), share.source)
        try:
            tree = AnnouncingTree(open_tree(share.source, owners, readonly=share.readonly))
        except OSError as error:
            raise MachineError(f"cannot share {share.source}: {error.strerror}") from error
        self._trees.append((share, tree))
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
