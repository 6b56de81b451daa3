"""One more process in a running container: `exec`."""

from __future__ import annotations

from wherry import names
from wherry.container.process import exec_process
from wherry.errors import Conflict, WherryError
from wherry.files import read_json
from wherry.oci.shape import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.container.spec import ExecConfig
    from wherry.container.store import Container
    from wherry.runtime import Runtime


class Execution:
    """A process that is to be run, as docker's Engine API asks for it."""

    def __init__(
        self,
        runtime: Runtime,
        container: Container,
        config: ExecConfig,
        *,
        detach: bool,
        detach_keys: str,
    ) -> None:
        spec = read_json(container.path("config.json"), SPEC)
        self._runtime = runtime
        self._container = container
        self._process = exec_process(spec["process"], config, available=runtime.capabilities())
        self._user = config.get("User") or container.body.get("User") or ""
        self._stdin = bool(config.get("AttachStdin"))
        self._detach = detach
        self._detach_keys = detach_keys
        # Whether the user has left its terminal, while it goes on.
        self._was_left = False

    def run(self, stdio: tuple[int, int, int] | None) -> int:
        """Run it with our standard streams, or with these; its exit code."""
        exec_id = names.new_id()
        words = " ".join(self._process["args"])
        self._container.event(f"exec_create: {words}", execID=exec_id)
        self._container.event(f"exec_start: {words}", execID=exec_id)
        if self._detach or self._process["terminal"]:
            code = self._execute(stdio, None)
        else:
            code = self._execute_with_pipes(stdio or (0, 1, 2))
        if self._was_left:
            self._container.event("exec_detach", execID=exec_id)
        elif not self._detach:
            self._container.event("exec_die", execID=exec_id, exitCode=str(code))
        return code

    def _execute_with_pipes(self, stdio: tuple[int, int, int]) -> int:
        from wherry.container.namespaces import has_own_ids
        from wherry.engine.streams import Streams

        is_other = self._user not in ("", "0", "root") or has_own_ids(self._container.body)
        streams = Streams(stdio, stdin=self._stdin, others=is_other)
        stdin_end, stdout_end, stderr_end = streams.theirs
        try:
            return self._execute(
                (stdin_end, stdout_end, stderr_end), streams.relay, streams.given()
            )
        finally:
            streams.close()

    def _execute(
        self,
        stdio: tuple[int, int, int] | None,
        on_started: Callable[[int], None] | None,
        given: Sequence[int] = (),
    ) -> int:
        try:
            return self._runtime.execute(
                self._container,
                self._process,
                user=self._user,
                detach=self._detach,
                stdin=self._stdin,
                on_terminal=self._relay,
                on_started=on_started,
                stdio=stdio,
                given=given,
            )
        except WherryError as error:
            # docker's code for what keeps a command from running in a container that does.
            if error.exit_code is None and not isinstance(error, Conflict):
                error.exit_code = 126
            raise

    def _relay(self, master: int) -> bool:
        from wherry.engine.session import relay_terminal

        self._was_left = relay_terminal(master, stdin=self._stdin, detach_keys=self._detach_keys)
        return self._was_left
