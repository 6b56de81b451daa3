"""`wherry doctor`: what works here, what does not, and how to mend it."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import command, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MARKS = {"ok": "ok     ", "limited": "limited", "missing": "MISSING"}


@command(
    option("-f", "--format", metavar="string", help="json, or a Go template for each finding"),
    examples="""\
  $ wherry doctor                         for this user
  $ sudo wherry doctor                    for root
  $ wherry doctor --format json
""",
)
def doctor(format: str) -> int:  # noqa: A002
    """Show what works on this machine, what does not, and how to mend it

    The exit code is 1 if something without which no container runs is missing.
    """

    def action(engine: Any) -> int:
        found: list[dict[str, str]] = engine.runtime.diagnose()
        if format:
            from wherry.cli.inspection import print_documents

            print_documents(found, None if format == "json" else format)
        else:
            _print(found, rootless=engine.runtime.is_rootless())
        return int(any(finding["Verdict"] == "missing" for finding in found))

    argv = doctor.argv(format=format)
    return execute(Command(argv=argv, action=action, works_without_places=True))


def _print(found: list[dict[str, str]], *, rootless: bool) -> None:
    print(f"Containers as {'this user, without root' if rootless else 'root'}:\n")
    width = max(len(finding["Subject"]) for finding in found)
    margin = " " * (width + 11)
    for finding in found:
        print(f"  {_MARKS[finding['Verdict']]}  {finding['Subject']:{width}}  {finding['Text']}")
        if finding["Mend"]:
            who = "" if finding["Who"] == "you" else " (administrator)"
            print(f"{margin}  mend{who}: {finding['Mend']}")
        if finding["Meanwhile"]:
            print(f"{margin}  meanwhile: {finding['Meanwhile']}")
