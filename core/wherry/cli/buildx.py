"""`wherry buildx`: what scripts ask of buildx beside `build`. There is one builder."""

from __future__ import annotations

from wherry.cli.grammar import argument, command, option
from wherry.errors import NotFound, Unsupported

DEFAULT = "default"


def _find(name: str) -> None:
    if name not in ("", DEFAULT):
        raise NotFound(f'no builder "{name}" found', hint=f"the one there is is {DEFAULT}")


@command(
    option("--bootstrap", type=bool, hidden=True),
    argument("name", required=False),
    name="buildx inspect",
)
def inspect(name: str, bootstrap: bool) -> int:  # noqa: ARG001 - nothing has to be started
    """Inspect the builder"""
    from wherry import __version__
    from wherry.image.platform import host_platform

    _find(name)
    print(f"Name:   {DEFAULT}\nDriver: wherry\n")
    print(f"Nodes:\nName:             {DEFAULT}\nStatus:           running")
    print(f"BuildKit version: wherry {__version__}\nPlatforms:        {host_platform()}")
    return 0


@command(name="buildx ls")
def ls() -> int:
    """List builders"""
    from wherry.image.platform import host_platform

    row = "{:<16} {:<16} {:<9} {}"
    print(row.format("NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "PLATFORMS"))
    print(row.format(f"{DEFAULT}*", "wherry", "running", host_platform()))
    return 0


@command(
    option("--default", type=bool, hidden=True),
    option("--global", name="everywhere", type=bool, hidden=True),
    argument("name"),
    name="buildx use",
)
def use(name: str, default: bool, everywhere: bool) -> int:  # noqa: ARG001 - it is used already
    """Set the current builder"""
    _find(name)
    return 0


@command(name="buildx version")
def version() -> int:
    """Show version information"""
    from wherry import __version__

    print(f"wherry buildx {__version__}")
    return 0


@command(
    option("--append", type=bool, hidden=True),
    option("--bootstrap", type=bool, hidden=True),
    option("--driver", hidden=True),
    option("--driver-opt", multiple=True, hidden=True),
    option("-f", "--file", multiple=True, hidden=True),
    option("--name", hidden=True),
    option("--platform", multiple=True, hidden=True),
    option("-t", "--tag", multiple=True, hidden=True),
    option("--use", type=bool, hidden=True),
    argument("words", nargs=-1, required=False),
    name="buildx create",
    hidden=True,
)
def other(**_: object) -> int:
    """What buildx has and this has not"""
    raise Unsupported(
        "there is one builder, and it is always there",
        hint="wherry buildx has build, du, inspect, ls, prune, use and version",
    )
