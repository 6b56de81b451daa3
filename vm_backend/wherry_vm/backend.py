"""The backend that says a command again, to the wherry inside the machine."""

from __future__ import annotations

import os

from wherry.errors import Unsupported
from wherry.files import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.backend import Command
    from wherry.engine import Engine


class VmBackend:
    """Carries commands out in the machine that WHERRY_MACHINE names, or the default one."""

    def execute(self, command: Command) -> int:
        from wherry_vm.client import Client, flush
        from wherry_vm.machines import DEFAULT, load_or_create
        from wherry_vm.starter import join, tell
        from wherry_vm.terminal import open_console

        machine = load_or_create(os.environ.get("WHERRY_MACHINE") or DEFAULT)
        flush()
        link = join(machine, "command", tell)
        try:
            if not command.output:
                return Client(link, open_console(), command.argv, stdin=command.stdin).run()
            draft = Draft(command.output)
            with draft as stdout:
                client = Client(
                    link, open_console(), command.argv, stdin=command.stdin, stdout=stdout
                )
                code = client.run()
                if code:
                    draft.discard()
                return code
        finally:
            link.close()

    def engine(self) -> Engine:
        raise Unsupported(
            "the engine is inside the machine",
            hint="from Python, too, commands are given: subprocess.run(['wherry', …])",
        )


def load() -> VmBackend:
    """The backend, for wherry.backend."""
    return VmBackend()
