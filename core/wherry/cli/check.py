"""`wherry system check`: what is damaged in what wherry keeps."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import command, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine


@command(
    option("-f", "--force", type=bool, help="Let a repair remove containers that cannot be read"),
    option("-q", "--quick", type=bool, help="Do not read the contents of images and layers"),
    option("-r", "--repair", type=bool, help="Mend what is damaged, or drop it to be pulled again"),
    examples="""\
  $ wherry system check
  $ wherry system check --repair
""",
    name="system check",
)
def check(force: bool, quick: bool, repair: bool) -> int:
    """Look for damage in images, layers and records of containers

    The exit code is 1 if there is damage that has not been mended.
    """

    def action(engine: Engine) -> int:
        from wherry.engine.check import check

        left = 0
        for problem, outcome in check(engine, repair=repair, force=force, quick=quick):
            if outcome == "repaired":
                print(f"{problem.text} (repaired)")
                continue
            left += 1
            print(f"{problem.text}{f' ({outcome})' if outcome else ''}")
            if problem.hint:
                print(f"  {problem.hint}")
            elif problem.mend is not None and not repair:
                print("  wherry system check --repair mends it")
        return int(left > 0)

    return execute(Command(argv=check.argv(force=force, quick=quick, repair=repair), action=action))
