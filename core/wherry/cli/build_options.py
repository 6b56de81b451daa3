"""The options of `build`: docker's, those of buildx, and those of podman worth having."""

from __future__ import annotations

import os

from wherry.builder.progress import STYLES
from wherry.builder.request import EPOCH
from wherry.cli import options
from wherry.cli.grammar import option
from wherry.container.create import add_devices
from wherry.container.limits import read_ulimit
from wherry.container.mount import absolute_bind
from wherry.errors import Unsupported, UsageError
from wherry.words import read_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Values = Mapping[str, Any]

_ATTESTATIONS = "attestations are not made"
_OWN_NAMESPACES = "a RUN has namespaces of its own"
_NO_HOOKS = "no other runtime carries a RUN out"

REFUSED = {
    "all_platforms": "--platform names those that are wanted",
    "attest": _ATTESTATIONS,
    "cert_dir": "certificates of registries are where docker has them, in certs.d",
    "cgroupns": _OWN_NAMESPACES,
    "cpp_flag": "no preprocessor reads the Dockerfile",
    "decryption_key": "images that are encrypted cannot be read",
    "hooks_dir": _NO_HOOKS,
    "ipc": _OWN_NAMESPACES,
    "logsplit": "one image has one log",
    "manifest": "-t names the image, and `wherry manifest` makes lists of images",
    "os_feature": "no image of Linux has any",
    "os_version": "no image of Linux has any",
    "pid": _OWN_NAMESPACES,
    "policy": "no policies are followed",
    "provenance": _ATTESTATIONS,
    "runtime_flag": _NO_HOOKS,
    "sbom": _ATTESTATIONS,
    "sign_by": "images are not signed",
    "stdin": "a RUN has nothing to read",
    "userns": _OWN_NAMESPACES,
    "uts": _OWN_NAMESPACES,
}
"""Options of others that are known, and why they cannot be had."""

_SWITCHES = ("all_platforms", "logsplit", "stdin")


def _shared(*names: str) -> tuple[Any, ...]:
    """Options that `run` has as well."""
    return tuple(each for each in options.CREATE if each.name in names)


def read_pull(text: str) -> str:
    """When base images are asked for at their registry: docker's yes and no, podman's words."""
    if text in ("always", "missing", "never"):
        return text
    if text in ("newer", "ifnewer"):
        return "always"
    if text in ("ifmissing", "ifnotpresent"):
        return "missing"
    return "always" if read_bool(text) else "missing"


def _read_isolation(text: str) -> str:
    if text not in ("", "default", "oci", "rootless"):
        raise UsageError(f"{text!r}: a RUN is a container")
    return text


# fmt: off
OPTIONS = (
    *_shared(
        "add_host", "arch", "authfile", "cap_add", "cap_drop", "cgroup_parent", "cpu_period",
        "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems", "creds", "device",
        "disable_content_trust", "dns", "dns_option", "dns_search", "memory", "memory_swap",
        "no_hostname", "no_hosts", "os", "retry", "retry_delay", "security_opt",
        "shm_size", "tls_verify", "ulimit", "variant",
    ),
    option("--allow", multiple=True, metavar="stringArray",
           help='Allow extra privileged entitlement (e.g., "network.host", "security.insecure")'),
    option("--annotation", multiple=True, metavar="stringArray",
           help="Add annotation to the image"),
    option("--build-arg", multiple=True, metavar="stringArray", help="Set build-time variables"),
    option("--build-arg-file", multiple=True, metavar="string",
           help="Read build-time variables from a file"),
    option("--build-context", multiple=True, metavar="stringArray",
           help="Additional build contexts (e.g., name=path)"),
    option("--builder", hidden=True),
    option("--cache-from", multiple=True, metavar="stringArray",
           help='External cache sources (e.g., "user/app:cache", "type=local,src=path")'),
    option("--cache-to", multiple=True, metavar="stringArray",
           help='Cache export destinations (e.g., "user/app:cache", "type=local,dest=path")'),
    option("--call", metavar="string", choices=("build", "check", "outline", "targets"),
           default="build",
           help='Set method for evaluating build ("check", "outline", "targets")'),
    option("--check", type=bool, help='Shorthand for "--call=check"'),
    option("--compress", type=bool, hidden=True),
    option("-D", "--debug", type=bool, hidden=True),
    option("--env", multiple=True, metavar="stringArray",
           help="Set an environment variable of the image and of each RUN"),
    option("-f", "--file", metavar="string",
           help='Name of the Dockerfile (default: "PATH/Dockerfile")'),
    option("--force-rm", type=bool, hidden=True),
    option("--format", choices=("oci", "docker"), default="oci", hidden=True),
    option("--from", name="base", metavar="image", help="Use this image in the first FROM"),
    option("--http-proxy", type=bool, default=True,
           help="Let RUN know the proxies of docker's config.json"),
    option("--identity-label", type=bool, default=True, hidden=True),
    option("--ignorefile", metavar="string", help="Use this file in the place of .dockerignore"),
    option("--iidfile", metavar="string", help="Write the image ID to a file"),
    option("--isolation", convert=_read_isolation, hidden=True),
    option("--jobs", type=int, metavar="int", help="How many steps are carried out at a time"),
    option("--label", multiple=True, metavar="stringArray", help="Set metadata for an image"),
    option("--layers", type=bool, default=True,
           help="Keep a layer for each step; false makes one of all new ones, and no cache"),
    option("--load", type=bool, hidden=True),
    option("--logfile", metavar="string", help="Write progress and output to this file"),
    option("--metadata-file", metavar="string", help="Write build result metadata to a file"),
    option("--network", metavar="string",
           help='Set the networking mode for the "RUN" instructions during build'),
    option("--no-cache", type=bool, help="Do not use cache when building the image"),
    option("--no-cache-filter", multiple=True, metavar="stringArray",
           help="Do not cache specified stages"),
    option("--omit-history", type=bool, help="Leave the history out of the image"),
    option("-o", "--output", multiple=True, metavar="stringArray",
           help='Output destination (format: "type=local,dest=path")'),
    option("--platform", multiple=True, metavar="stringArray",
           help="Set target platforms for build (os/arch[/variant],...)"),
    option("--progress", metavar="string", choices=STYLES, default="auto",
           env="BUILDKIT_PROGRESS",
           help='Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty")'),
    option("--pull", bare="always", default="missing", convert=read_pull, metavar="policy",
           help='Always attempt to pull all referenced images ("always", "missing", "never")'),
    option("--push", type=bool, help='Shorthand for "--output=type=registry"'),
    option("-q", "--quiet", type=bool,
           help="Suppress the build output and print image ID on success"),
    option("--rewrite-timestamp", type=bool, hidden=True),
    option("--rm", type=bool, default=True, hidden=True),
    option("--secret", multiple=True, metavar="stringArray",
           help='Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'),
    option("--skip-unused-stages", type=bool, default=True, hidden=True),
    option("--squash", type=bool, help="Squash newly built layers into a single new layer"),
    option("--squash-all", type=bool, help="Squash all layers into a single layer"),
    option("--ssh", multiple=True, metavar="stringArray",
           help='SSH agent socket or keys to expose to the build '
                '(format: "default|<id>[=<socket>|<key>[,<key>]]")'),
    option("--sent", type=bool, hidden=True, help="The contexts are another host's"),
    option("-t", "--tag", multiple=True, metavar="stringArray",
           help='Image identifier (format: "[registry/]repository[:tag]")'),
    option("--target", metavar="string", help="Set the target build stage to build"),
    option("--timestamp", aliases=("--source-date-epoch",), metavar="seconds",
           help="Make nothing in the image younger than this time"),
    option("--unsetenv", multiple=True, metavar="stringArray",
           help="Leave an environment variable out of the image"),
    option("--unsetlabel", multiple=True, metavar="stringArray",
           help="Leave a label out of the image"),
    option("-v", "--volume", multiple=True, metavar="list", convert=absolute_bind,
           help="Bind mount a volume into each RUN"),
    *(
        option(f"--{name.replace('_', '-')}", multiple=name not in _SWITCHES, hidden=True,
               type=bool if name in _SWITCHES else str)
        for name in REFUSED
    ),
)
# fmt: on


def refuse(values: Values) -> None:
    """Say what is asked for that cannot be had."""
    for name, reason in REFUSED.items():
        given = values[name] if isinstance(values[name], tuple) else (values[name],)
        if any(each and not _is_off(each) for each in given):
            raise Unsupported(f"--{name.replace('_', '-')}: {reason}")


def _is_off(text: Any) -> bool:
    """Whether an option says that something is not wanted: an attestation, as a rule."""
    # Those that are to be inline only have no place in an image of a store, with docker as well.
    words = str(text).lower()
    return words in ("false", "0") or "disabled=true" in words or "inline-only=true" in words


# Keys of HostConfig that decide what a RUN sees, and those that only limit it.
_SEEN = (
    ("CapAdd", "cap_add"),
    ("CapDrop", "cap_drop"),
    ("Dns", "dns"),
    ("DnsOptions", "dns_option"),
    ("DnsSearch", "dns_search"),
    ("ExtraHosts", "add_host"),
    ("ShmSize", "shm_size"),
)
_LIMITS = (
    ("CgroupParent", "cgroup_parent"),
    ("CpuPeriod", "cpu_period"),
    ("CpuQuota", "cpu_quota"),
    ("CpuShares", "cpu_shares"),
    ("CpusetCpus", "cpuset_cpus"),
    ("CpusetMems", "cpuset_mems"),
    ("Memory", "memory"),
    ("MemorySwap", "memory_swap"),
)
_OWN = (("NoHosts", "no_hosts"), ("NoHostname", "no_hostname"))


def host_config(values: Values) -> dict[str, Any]:
    """What the containers of RUN have of HostConfig, as part of what decides their result."""
    from wherry.cli.host import with_profile

    host = _chosen(_SEEN, values)
    if values["security_opt"]:
        host["SecurityOpt"] = list(map(with_profile, values["security_opt"]))
    if values["ulimit"]:
        host["Ulimits"] = list(map(read_ulimit, values["ulimit"]))
    if values["volume"]:
        host["Binds"] = list(values["volume"])
    add_devices(host, {**values, "gpus": ()})
    return host


def resources(values: Values) -> dict[str, Any]:
    """What of HostConfig limits them."""
    return _chosen(_LIMITS, values)


def own_config(values: Values) -> dict[str, Any]:
    """What of `Wherry` they have."""
    return _chosen(_OWN, values)


def _chosen(table: tuple[tuple[str, str], ...], values: Values) -> dict[str, Any]:
    return {
        key: list(values[name]) if isinstance(values[name], tuple) else values[name]
        for key, name in table
        if values[name]
    }


def epoch(values: Values, args: Mapping[str, str]) -> str:
    """What is said of the moment that nothing new is younger than; "" for nothing."""
    return values["timestamp"] or args.get(EPOCH) or os.environ.get(EPOCH) or ""
