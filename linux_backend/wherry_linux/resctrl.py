"""runtime-spec `linux.intelRdt`: Documentation/filesystems/resctrl.rst.

A class of service is a directory of the resctrl file system; its `schemata` says which
part of the caches and of the memory's bandwidth its tasks get.
"""

from __future__ import annotations

import os

from wherry.errors import Conflict, KernelError, NotFound, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxIntelRdt


def mount_point() -> str:
    """Where resctrl is mounted. Raises Unsupported."""
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            if rest.split()[0] == "resctrl":
                return fields.split()[4]
    raise Unsupported(
        "cannot apply linux.intelRdt: no resctrl file system is mounted",
        hint="where the processor has it: mount -t resctrl resctrl /sys/fs/resctrl",
    )


def check(rdt: LinuxIntelRdt) -> None:
    """Raise UsageError for what contradicts the specification."""
    name = rdt.get("closID") or ""
    if name in (".", "..") or ("/" in name and name != "/"):
        raise UsageError(f"linux.intelRdt.closID {name!r} is not the name of a directory")
    bandwidth = rdt.get("memBwSchema") or ""
    if bandwidth and not bandwidth.startswith("MB:"):
        raise UsageError("linux.intelRdt.memBwSchema does not start with MB:")
    if "\n" in bandwidth:
        raise UsageError("linux.intelRdt.memBwSchema has more than one line")


def schemata_of(rdt: LinuxIntelRdt) -> list[str]:
    """The lines for the class's `schemata`, in the order in which they are written."""
    bandwidth = rdt.get("memBwSchema") or ""
    lines = [
        line
        for line in (rdt.get("l3CacheSchema") or "").split("\n")
        if line and not (bandwidth and line.startswith("MB:"))
    ]
    if bandwidth:
        lines.append(bandwidth)
    return [*lines, *(rdt.get("schemata") or ())]


def holds(schemata: str, line: str) -> bool:
    """Whether a class's `schemata` has what `line` asks for."""
    present = dict(map(_parse, filter(str.strip, schemata.splitlines())))
    resource, wanted = _parse(line)
    found = present.get(resource, {})
    return all(found.get(domain) == value for domain, value in wanted.items())


def _parse(line: str) -> tuple[str, dict[str, str]]:
    """`L3:0=7f0;1=1f` as its resource, and the value of each domain."""
    resource, _, domains = line.partition(":")
    pairs = (domain.partition("=") for domain in domains.split(";"))
    return resource.strip(), {name.strip(): value.strip().lstrip("0") for name, _, value in pairs}


def join(rdt: LinuxIntelRdt, container_id: str, pid: int, top: str) -> list[str]:
    """Put process `pid` into its class below `top`; the directories that end with the container.

    Leaves nothing behind when it raises.
    """
    made: list[str] = []
    try:
        directory = os.path.join(top, (rdt.get("closID") or container_id).lstrip("/"))
        _make_class(rdt, directory, made)
        _write(f"{directory}/tasks", str(pid))
        if rdt.get("enableMonitoring"):
            group = os.path.join(directory, "mon_groups", container_id)
            os.mkdir(group)
            made.append(group)
            _write(f"{group}/tasks", str(pid))
    except BaseException as error:
        leave(made)
        if isinstance(error, OSError):
            raise KernelError(
                f"cannot apply linux.intelRdt: {error.strerror}: {error.filename}",
                error.errno or 0,
            ) from error
        raise
    # A class that was asked for by name is there for others, too.
    return [path for path in made if path != directory or not rdt.get("closID")]


def _make_class(rdt: LinuxIntelRdt, directory: str, made: list[str]) -> None:
    lines = schemata_of(rdt)
    if os.path.isdir(directory):
        with open(f"{directory}/schemata") as file:
            present = file.read()
        for line in lines:
            if not holds(present, line):
                raise Conflict(f"linux.intelRdt: {directory} is there, and does not have {line}")
        return
    if rdt.get("closID") and not lines:
        raise NotFound(f"linux.intelRdt: there is no class of service {rdt['closID']}")
    os.mkdir(directory)
    made.append(directory)
    for line in lines:
        _write(f"{directory}/schemata", line)


def leave(directories: list[str]) -> None:
    """Remove what `join` made; their processes have ended."""
    for directory in reversed(directories):
        try:
            os.rmdir(directory)
        except OSError:
            pass  # unmounted, or removed by others


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)
