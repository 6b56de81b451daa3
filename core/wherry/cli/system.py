"""Commands about wherry itself: info, version, events, `system df`."""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import command, option
from wherry.errors import WherryError
from wherry.harmless import shown
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.engine import Engine

_EVENT_FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
    "scope", "secret", "service", "type", "volume",
)  # fmt: skip


# ---- version ----


_CLIENT = option("--client", hidden=True)
"""In a machine: the Client block of its host, in JSON."""


@command(common.DOCUMENT_FORMAT, _CLIENT)
def version(format: str, client: str) -> int:  # noqa: A002
    """Show the wherry version information"""

    def action(engine: Engine) -> int:
        has_answered.append(True)
        _print_version(engine.system.version(), format, client)
        return 0

    def elsewhere(forward: Callable[..., int]) -> int:
        return forward(version.argv(format=format, client=dump_json(client_version())))

    has_answered: list[bool] = []
    argv = version.argv(format=format, client=client)
    try:
        return execute(Command(argv=argv, action=action, brief=True, elsewhere=elsewhere))
    except (OSError, WherryError):
        # As with docker, whose daemon is not there: what the command is can be told all the same.
        if not has_answered:
            try:
                _print_version(None, format, client)
            except WherryError:
                pass  # it asks for what the server would say
        raise


def _print_version(server: Mapping[str, Any] | None, template: str, given: str) -> None:
    client = load_json(given) if given else client_version()
    if template:
        from wherry.cli.inspection import format_document

        sys.stdout.write(format_document({"Client": client, "Server": server}, template))
        return
    _print_client(client)
    if server is not None:
        _print_server(server)


def client_version() -> dict[str, Any]:
    """The Client block: the program that reads the command line."""
    import platform

    from wherry import __version__
    from wherry.engine.system import API_VERSION
    from wherry.image.platform import host_platform

    return {
        "Platform": {"Name": "wherry"},
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": platform.python_version(),
        "Os": platform.system().lower(),
        "Arch": host_platform().architecture,
        "BuildTime": "",
        "Context": "default",
    }


def _print_client(client: Mapping[str, Any]) -> None:
    print("Client: wherry")
    _print_fields(
        (
            ("Version:", client["Version"]),
            ("API version:", client["ApiVersion"]),
            ("Python version:", client["PythonVersion"]),
            ("OS/Arch:", f"{client['Os']}/{client['Arch']}"),
            ("Context:", client["Context"]),
        ),
        indent=1,
        width=19,
    )


def _print_server(server: Mapping[str, Any]) -> None:
    print(f"\nServer: {server['Platform']['Name']}")
    print(" Engine:")
    _print_fields(
        (
            ("Version:", server["Version"]),
            ("API version:", f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})"),
            ("Python version:", server["PythonVersion"]),
            ("OS/Arch:", f"{server['Os']}/{server['Arch']}"),
            ("Kernel version:", server["KernelVersion"]),
        ),
        indent=2,
        width=18,
    )


def _print_fields(fields: Sequence[tuple[str, str]], *, indent: int, width: int) -> None:
    for title, content in fields:
        print(f"{' ' * indent}{title.ljust(width)}{content}")


# ---- info ----


@command(common.DOCUMENT_FORMAT, _CLIENT, name="info")
def info(format: str, client: str) -> int:  # noqa: A002
    """Display system-wide information"""

    def action(engine: Engine) -> int:
        document = engine.system.info()
        client_block = load_json(client) if client else client_version()
        document["ClientInfo"] = {**client_block, "Debug": False, "Plugins": [], "Warnings": []}
        if format:
            from wherry.cli.inspection import format_document

            sys.stdout.write(format_document(document, format))
        else:
            _print_info(document)
        return 0

    def elsewhere(forward: Callable[..., int]) -> int:
        return forward(info.argv(format=format, client=dump_json(client_version())))

    argv = info.argv(format=format, client=client)
    return execute(Command(argv=argv, action=action, brief=True, elsewhere=elsewhere))


def _print_info(document: Mapping[str, Any]) -> None:
    from wherry.human import binary_size

    client = document["ClientInfo"]
    print(f"Client: wherry\n Version:    {client['Version']}\n Context:    {client['Context']}")
    print("\nServer:")
    lines = [
        f"Containers: {document['Containers']}",
        f" Running: {document['ContainersRunning']}",
        f" Paused: {document['ContainersPaused']}",
        f" Stopped: {document['ContainersStopped']}",
        f"Images: {document['Images']}",
        f"Server Version: {document['ServerVersion']}",
        f"Storage Driver: {document['Driver']}",
        *(f" {name}: {content}" for name, content in document["DriverStatus"]),
        f"Logging Driver: {document['LoggingDriver']}",
        f"Cgroup Driver: {document['CgroupDriver']}",
        f"Cgroup Version: {document['CgroupVersion']}",
        f"Runtimes: {' '.join(sorted(document['Runtimes']))}",
        f"Default Runtime: {document['DefaultRuntime']}",
        "Security Options:",
        *(f" {line}" for option in document["SecurityOptions"] for line in _security(option)),
        f"Kernel Version: {document['KernelVersion']}",
        f"Operating System: {document['OperatingSystem']}",
        f"OSType: {document['OSType']}",
        f"Architecture: {document['Architecture']}",
        f"CPUs: {document['NCPU']}",
        f"Total Memory: {binary_size(document['MemTotal'])}",
        f"Name: {document['Name']}",
        f"ID: {document['ID']}",
        f"Root Dir: {document['DockerRootDir']}",
        f"Debug Mode: {str(document['Debug']).lower()}",
        f"Live Restore Enabled: {str(document['LiveRestoreEnabled']).lower()}",
    ]
    print("".join(f" {line}\n" for line in lines), end="")
    for warning in document["Warnings"] or ():
        print(warning, file=sys.stderr)


def _security(text: str) -> list[str]:
    """`name=seccomp,profile=builtin` as docker's two lines."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    name = fields.pop("name", text)
    return [name, *(f" {key.capitalize()}: {content}" for key, content in fields.items())]


# ---- events ----


@command(
    common.FILTER,
    option("--format", help='Format output using a custom template: "json" or "TEMPLATE"'),
    option("--since", help="Show all events created since timestamp"),
    option("--until", help="Stream events until this timestamp"),
    examples="""\
  $ wherry events --filter container=web               what happens to one container, as it does
  $ wherry events --since 1h --until 0s --format json  the last hour, and no more
""",
)
def events(filter: tuple[str, ...], format: str, since: str, until: str) -> int:  # noqa: A002
    """Get real time events"""
    from wherry.filters import parse_filters
    from wherry.times import parse_timestamp

    filters = parse_filters(filter, _EVENT_FILTERS)
    first, last = (parse_timestamp(text) if text else 0 for text in (since, until))

    def action(engine: Engine) -> int:
        line_of = _event_format(format)
        for event in engine.system.events(since=first, until=last, filters=filters):
            print(line_of(event), flush=True)
        return 0

    argv = events.argv(
        filter=filter, format=format, since=common.moment(first), until=common.moment(last)
    )
    return execute(Command(argv=argv, action=action))


def _event_format(template: str) -> Any:
    """A function from an event to its line."""
    if not template:
        return lambda event: shown(format_event(event))
    from wherry.cli.template import parse_template, typed

    parsed = parse_template("{{json .}}" if template == "json" else template)
    return lambda event: parsed.render(typed(event))


def format_event(event: Mapping[str, Any]) -> str:
    """`TIME TYPE ACTION ID (name=…, …)`."""
    actor = event["Actor"]
    attributes = actor.get("Attributes") or {}
    told = ", ".join(f"{name}={content}" for name, content in sorted(attributes.items()))
    when = _local_time(event["timeNano"])
    line = f"{when} {event['Type']} {event['Action']} {actor['ID']}"
    return f"{line} ({told})" if told else line


def _local_time(nanoseconds: int) -> str:
    import time

    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone[:3]}:{zone[3:]}"


# ---- df ----


@command(
    common.FORMAT,
    option("-v", "--verbose", type=bool, help="Show detailed information on space usage"),
    name="system df",
)
def df(format: str, verbose: bool) -> int:  # noqa: A002
    """Show wherry's disk usage"""

    def action(engine: Engine) -> int:
        from wherry.builder.usage import documents

        usage = {**engine.system.disk_usage(), "BuildCache": documents(engine)}
        if verbose:
            from wherry.cli.usage import print_details

            print_details(usage, format)
        else:
            from wherry.cli.usage import print_summary

            print_summary(usage, format)
        return 0

    return execute(Command(argv=df.argv(format=format, verbose=verbose), action=action))
