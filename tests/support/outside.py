"""The system that runs the containers of a test: this one, or the guest of a machine."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.settings import Setting
    from support.world import World


class Outside:
    """`outside("readlink", …)`: what a program prints there, beside the containers, as root.

    As whoever runs the tests, where that is not root. What fails prints nothing.
    """

    def __init__(self, world: World, setting: Setting) -> None:
        self._wherry = world.wherry
        self._in_guest = setting.backend == "vm"
        self.data = "/var/lib/wherry" if self._in_guest else f"{world.root}/data"
        """The directory of the store."""

    def __call__(self, *argv: str) -> str:
        if self._in_guest:
            return self._wherry("machine", "ssh", "default", *argv, check=False).stdout
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return result.stdout

    def directory(self, container: str = "box") -> str:
        """Where the store keeps a container."""
        return f"{self.data}/containers/{self._inspected('{{.Id}}', container)}"

    def monitor(self, container: str = "box") -> int:
        """The pid of its monitor."""
        state = json.loads(self("cat", f"{self.directory(container)}/state.json"))
        return int(state["MonitorPid"])

    def has_settled(self, monitor: int) -> bool:
        """Whether it goes on in its own interpreter."""
        return "handover" in self("cat", f"/proc/{monitor}/cmdline")

    def kill_monitor(self, container: str = "box") -> None:
        """Kill its monitor; the container's own process ends, too."""
        pids = [self.monitor(container), int(self._inspected("{{.State.Pid}}", container))]
        self("kill", "-KILL", str(pids[0]))
        gone = "".join(f"[ ! -e /proc/{pid} ] && " for pid in pids) + "echo gone"
        wait_until(lambda: self("sh", "-c", gone) != "", Deadline(60, "the container to end"))

    def descriptors(self, pid: int) -> list[str]:
        """What a process has open."""
        script = f"for each in /proc/{pid}/fd/*; do readlink $each; done"
        return self("sh", "-c", script).splitlines()

    def wait_for_clients(self, count: int, container: str = "box") -> None:
        """Wait until the monitor of a container has `count` connections."""
        monitor = self.monitor(container)

        def connections() -> int:
            # One of its sockets is the one that it listens on.
            return sum(each.startswith("socket:") for each in self.descriptors(monitor)) - 1

        wait_until(lambda: connections() >= count, Deadline(60, f"{count} clients to connect"))

    def _inspected(self, template: str, container: str) -> str:
        return self._wherry("inspect", "--format", template, container).stdout.strip()
