"""The files that tell a container about the network: hosts(5), hostname(5), resolv.conf(5).

They are written in the container's directory for each of its runs and bound over the
image's, where the container may change them.
"""

from __future__ import annotations

import os

from wherry.errors import UsageError, WherryError
from wherry.lean import sockets
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container, ContainerStore
    from wherry.oci.runtime_spec import Mount

_LOCALHOST = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
# What docker takes where the host has no resolver that a container can reach.
_FALLBACK = ("8.8.8.8", "8.8.4.4")
# systemd-resolved's own list, behind the stub that listens on the host's loopback.
_RESOLVED = "/run/systemd/resolve/resolv.conf"
# What stands for the host's address in `--add-host NAME:host-gateway`.
GATEWAY = "host-gateway"
_HOST_NAMES = ("host.docker.internal", "host.containers.internal", "gateway.docker.internal")


@value
class Attachment:
    """How a container is reached, as far as it is known."""

    # Its own addresses.
    addresses: Sequence[str] = ()
    # The host as the container sees it: what `host-gateway` stands for.
    gateways: Sequence[str] = ()
    # Resolvers in place of the host's.
    nameservers: Sequence[str] = ()
    has_ipv6: bool = True
    # Other containers by the names that `--link` gives them: (address, names).
    links: Sequence[tuple[str, str]] = ()


def file_mounts(container: Container, store: ContainerStore) -> list[Mount]:
    """Write a container's files for its next run; their mounts."""
    body = container.body
    own = body.get("Wherry") or {}
    network = str(body["HostConfig"].get("NetworkMode") or "")
    directory = container.directory
    if network.startswith("container:"):
        directory = store.find(network.removeprefix("container:")).directory
    else:
        write_files(container, Attachment())
    access = "ro" if body["HostConfig"].get("ReadonlyRootfs") else "rw"
    skipped = {"hosts": own.get("NoHosts"), "hostname": own.get("NoHostname")}
    return [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": os.path.join(directory, name),
            "options": ["rbind", "rprivate", access],
        }
        for name in ("resolv.conf", "hostname", "hosts")
        if not skipped.get(name) and os.path.exists(os.path.join(directory, name))
    ]


def write_files(container: Container, attachment: Attachment) -> None:
    """Write the files of a container; call it again where an address becomes known.

    They are written in place: a running container sees the change.
    """
    body = container.body
    host = body["HostConfig"]
    own = body.get("Wherry") or {}
    is_host = host.get("NetworkMode") == "host"
    name = str(body.get("Hostname") or container.id[:12])
    if is_host or host.get("UTSMode") == "host":
        name = str(body.get("Hostname") or sockets.gethostname())
    _put(container.path("hostname"), f"{name}\n")
    extra = host.get("ExtraHosts") or ()
    base = None
    if own.get("HostsFile"):
        base = _read_base(own["HostsFile"])
    elif is_host:
        base = _read("/etc/hosts")
    _put(
        container.path("hosts"),
        hosts(
            name,
            str(body.get("Domainname") or ""),
            attachment,
            # Who shares the host's network reaches the host by its loopback.
            [_on_host(text) for text in extra] if is_host else extra,
            base,
        ),
    )
    _put(
        container.path("resolv.conf"),
        resolv_conf(_host_resolvers(is_host), host, attachment, is_host=is_host),
    )


def _put(path: str, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.chmod(path, 0o644)
            os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise WherryError(f"cannot write {path}: {error.strerror}") from error


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _read_base(path: str) -> str:
    """The file of `--hosts-file`, or "none"."""
    if path == "none":
        return ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read --hosts-file {path}: {error.strerror}") from error


# ---- hosts(5) ----


def hosts(
    hostname: str,
    domainname: str,
    attachment: Attachment,
    extra: Iterable[str],
    base: str | None,
) -> str:
    """/etc/hosts. `base` takes the place of the lines about localhost."""
    if base is None:
        lines = [f"{address}\t{names}" for address, names in _LOCALHOST]
    else:
        lines = base.splitlines()
    given = [line for text in extra for line in _extra_hosts(text, attachment)]
    lines += given
    named = {name for line in given for name in line.split("\t")[1].split()}
    for name in _HOST_NAMES:
        if name not in named:
            lines += [f"{address}\t{name}" for address in attachment.gateways[:1]]
    lines += [f"{address}\t{names}" for address, names in attachment.links]
    full = f"{hostname}.{domainname}" if domainname else hostname
    short = full.partition(".")[0]
    called = full if short == full else f"{full} {short}"
    lines += [f"{address}\t{called}" for address in attachment.addresses]
    return "\n".join(lines) + "\n"


def _on_host(text: str) -> str:
    name, found, _ = text.partition(GATEWAY)
    return f"{name}127.0.0.1" if found else text


def _extra_hosts(text: str, attachment: Attachment) -> list[str]:
    """The lines of `--add-host NAME:ADDRESS`."""
    cut = min((at for at in (text.find(":"), text.find("=")) if at >= 0), default=len(text))
    names, address = text[:cut], text[cut + 1 :].removeprefix("[").removesuffix("]")
    addresses: Sequence[str] = [address]
    if address == GATEWAY:
        addresses = attachment.gateways
    return [f"{each}\t{name}" for each in addresses for name in names.split(";")]


# ---- resolv.conf(5) ----


def _host_resolvers(is_host: bool) -> str:
    """The host's resolv.conf; for others than the host, what a stub on loopback hides."""
    text = _read("/etc/resolv.conf")
    servers = _values(text, "nameserver")
    if not is_host and servers and all(server == "127.0.0.53" for server in servers):
        return _read(_RESOLVED) or text
    return text


def host_nameservers(container_id: str) -> list[str]:
    """Whom a container's resolver asks: those of `--dns`, or the host's of this moment."""
    from wherry.container.store import read_record

    try:
        given = read_record(container_id)["Body"]["HostConfig"].get("Dns")
    except WherryError:
        given = None
    return list(given or _values(_read("/etc/resolv.conf"), "nameserver") or _FALLBACK)


def resolv_conf(
    host_text: str, host: Mapping[str, Any], attachment: Attachment, *, is_host: bool
) -> str:
    """/etc/resolv.conf: the host's, with what HostConfig (`host`) says instead."""
    # A resolver of ours asks those of `--dns` itself.
    servers = list(attachment.nameservers or host.get("Dns") or ())
    if not servers:
        servers = _values(host_text, "nameserver")
        if not is_host:
            servers = [server for server in servers if _is_reachable(server, attachment)]
            servers = servers or list(_FALLBACK)
    search = list(host.get("DnsSearch") or _last_words(host_text, ("search", "domain")))
    options = list(host.get("DnsOptions") or _last_words(host_text, ("options",)))
    if attachment.nameservers and not any(each.startswith("ndots:") for each in options):
        options.append("ndots:0")  # a name without a dot is a container's first of all
    lines = [f"nameserver {server}" for server in servers]
    # `--dns-search .` asks for none.
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _values(text: str, keyword: str) -> list[str]:
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == keyword]


def _last_words(text: str, keywords: Sequence[str]) -> list[str]:
    """What follows the last line that begins with one of `keywords`, which is what counts."""
    lines = [line.split() for line in text.splitlines()]
    found = [words[1:] for words in lines if len(words) > 1 and words[0] in keywords]
    return found[-1] if found else []


def _is_reachable(server: str, attachment: Attachment) -> bool:
    """Whether a container with a loopback of its own reaches a resolver of the host."""
    if server.startswith("127.") or server == "::1":
        return False
    # An address with a zone (fe80::1%eth0) means something on the host's links only.
    return ":" not in server or (attachment.has_ipv6 and "%" not in server)
