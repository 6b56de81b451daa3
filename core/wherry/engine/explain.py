"""`--explain`: what a container is made of, said once it runs."""

from __future__ import annotations

import sys

from wherry.container.explain import explain, explain_text
from wherry.container.userns import is_auto
from wherry.engine.launch import why_no_user_namespace
from wherry.harmless import harmless
from wherry.lean import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container
    from wherry.container.wire import Connection
    from wherry.runtime import Runtime


def show(container: Container, runtime: Runtime, connection: Connection, form: str) -> None:
    """Print the explanation of a start on stderr, as "text" or "json".

    The container itself may have ended, and with `--rm` be gone: what is told is what
    the start was given, and the numbers that the monitor took before the program ran.
    """
    spec = connection.spec
    assert spec is not None
    numbers: dict[str, str] = connection.greeting["namespaces"]
    section = spec["linux"].get("seccomp")
    explanation = explain(
        spec,
        host={kind: int(number) for kind, number in runtime.namespace_numbers().items()},
        container={kind: int(number) for kind, number in numbers.items()},
        network=container.body["HostConfig"].get("NetworkMode") or "default",
        instructions=None if section is None else runtime.filter_length(section),
        notes=[*_refusal(connection), *_notes(container, runtime)],
    )
    text = dump_json(explanation) if form == "json" else explain_text(explanation)
    print(harmless(text), file=sys.stderr, flush=True)


def _refusal(connection: Connection) -> list[str]:
    refusal = connection.greeting.get("refusal")
    if not refusal:
        return []
    return [f"no user namespace of its own: {refusal}; `wherry doctor` tells why"]


def _notes(container: Container, runtime: Runtime) -> list[str]:
    notes = []
    why = why_no_user_namespace(container.body)
    if why and not runtime.is_rootless():
        notes.append(f"no user namespace of its own, because of {why}")
    if is_auto(container.body["HostConfig"].get("UsernsMode") or ""):
        notes.append(
            "the ids are this container's alone until it is removed; by idmapped mounts"
            " its files keep their owners"
        )
    if runtime.cgroup_path(container.id, "") is None:
        notes.append("no control group: none is delegated to this user (see `wherry doctor`)")
    if (container.body.get("Wherry") or {}).get("ClockOffsets"):
        notes.append("clock offsets move uptime and monotonic clocks, never the date")
    return notes
