"""`wherry system reset`: as if wherry had never been used."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine

_WARNING = """\
WARNING! This will remove:
  - all containers, running or not
  - all images
  - all volumes
  - all secrets
"""


@command(common.FORCE_PRUNE, name="system reset")
def reset(force: bool) -> int:
    """Remove every container, image, volume and secret"""
    from wherry.cli.prune import confirm

    confirm(_WARNING, "system reset", force)

    def action(engine: Engine) -> int:
        from wherry.engine.reset import reset_everything

        reset_everything(engine)
        return 0

    return execute(Command(argv=reset.argv(force=True), action=action))
