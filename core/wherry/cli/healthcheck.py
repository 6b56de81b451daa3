"""`wherry healthcheck run`: check a container's health now."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine


@command(
    argument("container"),
    name="healthcheck run",
    failure=125,
    examples="""\
  $ wherry healthcheck run web && echo well
""",
)
def run(container: str) -> int:
    """Run the health check of a container; exit with 0 if it is healthy, with 1 if not"""

    def action(engine: Engine) -> int:
        is_healthy = engine.containers.check_health(container)
        if not is_healthy:
            print("unhealthy")
        return 0 if is_healthy else 1

    return execute(Command(argv=run.argv(container=container), action=action))
