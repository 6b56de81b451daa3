"""`wherry oci`: the runtime's own command line, which engines such as podman call."""

from __future__ import annotations

from wherry.backend import load_oci
from wherry.cli.grammar import argument, command, option
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COMMANDS = """\
  create      Make a container from a bundle; its program waits for start
  delete      Remove what a container needed
  events      Show what a container uses
  exec        Run one more program in a container
  features    Show what the runtime can do here
  kill        Send a signal to a container's first process
  list        List the containers
  pause       Freeze a container's processes
  ps          List a container's processes
  resume      Let a paused container go on
  run         Create a container and start it
  spec        Write a config.json to begin with
  start       Run a created container's program
  state       Show a container's state
  update      Change what a container may use
"""


@command(
    option("--cgroup-manager", choices=("cgroupfs", "systemd", "disabled"), default="cgroupfs",
           metavar="string", hidden=True),
    option("--criu", metavar="string", hidden=True),
    option("--debug", type=bool, help="Log more"),
    option("--log", metavar="file", help="Log to this file as well"),
    option("--log-format", choices=("text", "json"), default="text", metavar="string",
           help='The log\'s format: "text" or "json"'),
    option("--root", metavar="directory", help="Where the containers' state is kept"),
    option("--rootless", choices=("auto", "true", "false"), default="auto", metavar="string",
           hidden=True),
    option("--systemd-cgroup", type=bool,
           help='cgroupsPath has systemd\'s form, "slice:prefix:name"'),
    option("-v", "--version", type=bool, help="Print the version and quit"),
    argument("words", nargs=-1, required=False),
    interspersed=False,
    usage="[OPTIONS] COMMAND",
    examples=f"  The commands, each with a --help of its own:\n\n{_COMMANDS}",
)  # fmt: skip
def oci(words: tuple[str, ...], version: bool, **options: Any) -> int:
    """Run bundles of the OCI runtime specification, with runc's words"""
    if version:
        from wherry import __version__
        from wherry.oci import OCI_VERSION

        print(f"wherry version {__version__}\nspec: {OCI_VERSION}")
        return 0
    if not words:
        raise UsageError("'wherry oci' needs a command", hint="See 'wherry oci --help'.")
    return load_oci()(words, **options)
