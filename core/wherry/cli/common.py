"""Options that many commands share, in one wording."""

from __future__ import annotations

from wherry.cli.grammar import option

FORMAT = option(
    "--format",
    help='Format output using a custom template: "table", "table TEMPLATE", "json" or "TEMPLATE"',
)
DOCUMENT_FORMAT = option(
    "-f", "--format", help='Format output using a custom template: "json" or "TEMPLATE"'
)
FILTER = option(
    "-f",
    "--filter",
    multiple=True,
    metavar="filter",
    help="Filter output based on conditions provided",
)
PRUNE_FILTER = option(
    "--filter",
    multiple=True,
    metavar="filter",
    help='Provide filter values (e.g. "label=<key>=<value>")',
)
FORCE_PRUNE = option("-f", "--force", type=bool, help="Do not prompt for confirmation")
NO_TRUNC = option("--no-trunc", type=bool, help="Do not truncate output")
DETACH_KEYS = option("--detach-keys", help="Override the key sequence for detaching a container")
SIG_PROXY = option(
    "--sig-proxy",
    type=bool,
    default=True,
    help="Proxy all received signals to the process",
)


def detach_keys(given: str) -> str:
    """The detach keys in force: as given, or docker's `detachKeys` of this host."""
    if given:
        return given
    from wherry.config_file import ConfigFile

    return ConfigFile().text("detachKeys")


def moment(nanoseconds: int) -> str:
    """A `--since` or `--until` that means the same at any later time; "" for 0."""
    if not nanoseconds:
        return ""
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}"
