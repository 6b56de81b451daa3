"""The options of `run` and `create`: docker's, those of podman worth having, and our own.

Their values are read as far as one option can tell (`convert`); what they mean
together is `wherry.container.create`'s to say.
"""

from __future__ import annotations

from wherry.cli.grammar import option
from wherry.container import endpoint, limits, mount
from wherry.container.capabilities import normalize
from wherry.errors import UsageError
from wherry.words import read_bytes, read_duration, write_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KERNEL_WINDOWS = "containers of Windows alone have it"
_V1 = "cgroup v2 has nothing like it"

IGNORED = {
    "cpu_count": _KERNEL_WINDOWS,
    "cpu_percent": _KERNEL_WINDOWS,
    "io_maxbandwidth": _KERNEL_WINDOWS,
    "io_maxiops": _KERNEL_WINDOWS,
    "cpu_rt_period": _V1,
    "cpu_rt_runtime": _V1,
    "kernel_memory": _V1,
    "memory_swappiness": _V1,
    "oom_kill_disable": _V1,
    "link_local_ip": "the bridge gives no such addresses",
    "storage_opt": "the writable layer has no quota",
    "use_api_socket": "there is no daemon whose socket could be shared",
}
"""Options that are read and then do nothing, and why; a line says so."""


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """A converter that lets through what `read` can read, as it is."""

    def check(text: str) -> str:
        read(text)
        return text

    return check


def read_env(text: str) -> str:
    """`NAME=value`, or a name alone."""
    if not text.partition("=")[0]:
        raise UsageError(f"invalid environment variable: {text}")
    return text


def read_label(text: str) -> str:
    """`name=value`, or a name alone."""
    if not text.partition("=")[0].strip():
        raise UsageError(f"invalid label '{text}': empty name")
    return text


def read_pair(text: str) -> str:
    """`name=value`."""
    name, equals, _ = text.partition("=")
    if not equals or not name:
        raise UsageError("it has to be key=value")
    return text


def read_stream(text: str) -> str:
    """The name of a standard stream."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise UsageError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def read_sysctl(text: str) -> str:
    """`name=value`."""
    if "=" not in text:
        raise UsageError(f"sysctl '{text}' is not allowed")
    return text


def read_clock(text: str) -> str:
    """`monotonic=SECONDS,boottime=SECONDS`."""
    for field in text.split(","):
        name, _, seconds = field.partition("=")
        if name not in ("monotonic", "boottime"):
            raise UsageError(f"there is no clock {name!r}: monotonic and boottime can be moved")
        try:
            float(seconds)
        except ValueError:
            raise UsageError(f"{seconds!r} is no number of seconds") from None
    return text


def _canonical_mount(text: str) -> str:
    return mount.write_mount(mount.parse_mount(text))


_BYTES: dict[str, Any] = {"type": int, "convert": read_bytes, "metavar": "bytes"}
_SWAP: dict[str, Any] = {"type": int, "convert": limits.read_swap, "metavar": "bytes"}
_CPUS: dict[str, Any] = {
    "type": int,
    "convert": limits.read_cpus,
    "write": limits.write_cpus,
    "metavar": "decimal",
}
_TIME: dict[str, Any] = {
    "type": int,
    "convert": read_duration,
    "write": write_duration,
    "metavar": "duration",
}
_LIST: dict[str, Any] = {"multiple": True, "metavar": "list"}
_MAP: dict[str, Any] = {"multiple": True, "metavar": "map"}
_BPS: dict[str, Any] = {**_LIST, "convert": checked(limits.read_throttle_bps)}
_IOPS: dict[str, Any] = {**_LIST, "convert": checked(limits.read_throttle_iops)}
_CAPS: dict[str, Any] = {**_LIST, "convert": normalize}

# fmt: off
RESOURCES = (
    option("--blkio-weight", type=int, metavar="uint16",
           help="Block IO (relative weight), between 10 and 1000, or 0 to disable"),
    option("--cpu-period", type=int,
           help="Limit CPU CFS (Completely Fair Scheduler) period"),
    option("--cpu-quota", type=int,
           help="Limit CPU CFS (Completely Fair Scheduler) quota"),
    option("--cpu-rt-period", type=int, hidden=True),
    option("--cpu-rt-runtime", type=int, hidden=True),
    option("-c", "--cpu-shares", type=int, help="CPU shares (relative weight)"),
    option("--cpus", **_CPUS, help="Number of CPUs"),
    option("--cpuset-cpus", help="CPUs in which to allow execution (0-3, 0,1)"),
    option("--cpuset-mems", help="MEMs in which to allow execution (0-3, 0,1)"),
    option("--kernel-memory", **_BYTES, hidden=True),
    option("-m", "--memory", **_BYTES, help="Memory limit"),
    option("--memory-reservation", **_BYTES, help="Memory soft limit"),
    option("--memory-swap", **_SWAP,
           help="Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    option("--pids-limit", type=int, default=None,
           help="Tune container pids limit (set -1 for unlimited)"),
)
"""What `update` can change as well."""

CREATE = (
    *RESOURCES,
    option("--add-host", **_LIST, convert=endpoint.read_extra_host,
           help="Add a custom host-to-IP mapping (host:ip)"),
    option("--annotation", **_MAP,
           help="Add an annotation to the container (passed through to the OCI runtime)"),
    option("--arch", help="Choose images for this architecture"),
    option("-a", "--attach", **_LIST, convert=read_stream,
           help="Attach to STDIN, STDOUT or STDERR"),
    option("--authfile", env="REGISTRY_AUTH_FILE", help="Read registry credentials from this file"),
    option("--blkio-weight-device", **_LIST, convert=checked(limits.read_weight_device),
           help="Block IO weight (relative device weight)"),
    option("--cap-add", **_CAPS, help="Add Linux capabilities"),
    option("--cap-drop", **_CAPS, help="Drop Linux capabilities"),
    option("--cgroup-conf", **_MAP, convert=read_pair,
           help="Write a file of the container's cgroup (memory.high=1G)"),
    option("--cgroup-parent", help="Optional parent cgroup for the container"),
    option("--cgroupns", help="Cgroup namespace to use (host|private)"),
    option("--cidfile", help="Write the container ID to the file"),
    option("--clock-offset", convert=read_clock, metavar="offsets",
           help="Move the clocks of the container's time namespace, in seconds: "
                "monotonic=60,boottime=3600. The uptime changes, the date never does"),
    option("--cpu-count", type=int, hidden=True),
    option("--cpu-percent", type=int, hidden=True),
    option("--creds", metavar="user:password", help="Credentials for the registry"),
    option("--device", **_LIST, help="Add a host device to the container"),
    option("--device-cgroup-rule", **_LIST, convert=limits.read_device_rule,
           help="Add a rule to the cgroup allowed devices list"),
    option("--device-read-bps", **_BPS,
           help="Limit read rate (bytes per second) from a device"),
    option("--device-read-iops", **_IOPS,
           help="Limit read rate (IO per second) from a device"),
    option("--device-write-bps", **_BPS,
           help="Limit write rate (bytes per second) to a device"),
    option("--device-write-iops", **_IOPS,
           help="Limit write rate (IO per second) to a device"),
    option("--disable-content-trust", type=bool, default=True, hidden=True),
    option("--dns", **_LIST, convert=endpoint.read_ip, help="Set custom DNS servers"),
    option("--dns-option", **_LIST, aliases=("--dns-opt",), help="Set DNS options"),
    option("--dns-search", **_LIST, convert=endpoint.read_dns_search,
           help="Set custom DNS search domains"),
    option("--domainname", help="Container NIS domain name"),
    option("--entrypoint", default=None,
           help="Overwrite the default ENTRYPOINT of the image"),
    option("-e", "--env", **_LIST, convert=read_env, help="Set environment variables"),
    option("--env-file", **_LIST, help="Read in a file of environment variables"),
    option("--env-host", type=bool, help="Use the host's environment inside the container"),
    option("--expose", **_LIST, help="Expose a port or a range of ports"),
    option("--gpus", **{**_LIST, "metavar": "gpu-request"}, convert=checked(limits.read_gpus),
           help="GPU devices to add to the container ('all' to pass all GPUs)"),
    option("--group-add", **_LIST,
           help="Add additional groups to join ('keep-groups' keeps those of the caller)"),
    option("--health-cmd", help="Command to run to check health"),
    option("--health-interval", **_TIME,
           help="Time between running the check (ms|s|m|h)"),
    option("--health-on-failure", choices=("none", "kill", "restart", "stop"), default="none",
           help="What to do with a container that is unhealthy"),
    option("--health-retries", type=int,
           help="Consecutive failures needed to report unhealthy"),
    option("--health-start-interval", **_TIME,
           help="Time between running the check during the start period (ms|s|m|h)"),
    option("--health-start-period", **_TIME,
           help="Start period for the container to initialize before starting "
                "health-retries countdown (ms|s|m|h)"),
    option("--health-startup-cmd",
           help="Command that has to succeed before the health check begins"),
    option("--health-startup-interval", **_TIME,
           help="Time between running the startup check (ms|s|m|h)"),
    option("--health-startup-retries", type=int,
           help="Failures of the startup check after which the container is restarted "
                "(0: never)"),
    option("--health-startup-success", type=int,
           help="Successes of the startup check after which the health check begins"),
    option("--health-startup-timeout", **_TIME,
           help="Maximum time to allow one startup check to run (ms|s|m|h)"),
    option("--health-timeout", **_TIME,
           help="Maximum time to allow one check to run (ms|s|m|h)"),
    option("--hosts-file", help="Use this file as the container's /etc/hosts"),
    option("-h", "--hostname", help="Container host name"),
    option("--http-proxy", type=bool, default=None,
           help="Give the container the host's proxy variables; "
                "false keeps those of config.json away too"),
    option("--init", type=bool, default=None,
           help="Run an init inside the container that forwards signals and reaps processes"),
    option("-i", "--interactive", type=bool, help="Keep STDIN open even if not attached"),
    option("--io-maxbandwidth", hidden=True),
    option("--io-maxiops", hidden=True),
    option("--ip", help="IPv4 address (e.g., 172.30.100.104)"),
    option("--ip6", help="IPv6 address (e.g., 2001:db8::33)"),
    option("--ipc", help="IPC mode to use"),
    option("--isolation", help="Container isolation technology"),
    option("-l", "--label", **_LIST, convert=read_label, help="Set meta data on a container"),
    option("--label-file", **_LIST, help="Read in a line delimited file of labels"),
    option("--link", **_LIST, convert=checked(endpoint.read_link),
           help="Add link to another container"),
    option("--link-local-ip", **_LIST, hidden=True),
    option("--log-driver", help="Logging driver for the container"),
    option("--log-opt", **_LIST, help="Log driver options"),
    option("--mac-address", help="Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    option("--memory-swappiness", type=int, default=-1, hidden=True),
    option("--mount", **{**_LIST, "metavar": "mount"}, convert=_canonical_mount,
           help="Attach a filesystem mount to the container"),
    option("--name", help="Assign a name to the container"),
    option("--network", **{**_LIST, "metavar": "network"}, aliases=("--net",),
           convert=checked(endpoint.read_network), help="Connect a container to a network"),
    option("--network-alias", **_LIST, aliases=("--net-alias",),
           help="Add network-scoped alias for the container"),
    option("--no-healthcheck", type=bool,
           help="Disable any container-specified HEALTHCHECK"),
    option("--no-hostname", type=bool, help="Leave /etc/hostname as the image has it"),
    option("--no-hosts", type=bool, help="Leave /etc/hosts as the image has it"),
    option("--oom-kill-disable", type=bool, hidden=True),
    option("--oom-score-adj", type=int,
           help="Tune host's OOM preferences (-1000 to 1000)"),
    option("--os", help="Choose images for this operating system"),
    option("--passwd", type=bool, default=None,
           help="Give a user that the image does not know a line in /etc/passwd "
                "(as --userns keep-id does)"),
    option("--personality", metavar="string",
           help="Execution domain of the container (LINUX or LINUX32)"),
    option("--pid", help="PID namespace to use"),
    option("--pidfile", help="Write the id of the container's process to the file"),
    option("--platform", env="DOCKER_DEFAULT_PLATFORM",
           help="Set platform of the image (os/arch[/variant])"),
    option("--preserve-fds", type=int,
           help="Pass on this many file descriptors, from 3 upwards"),
    option("--privileged", type=bool, help="Give extended privileges to this container"),
    option("-p", "--publish", **_LIST, help="Publish a container's port(s) to the host"),
    option("-P", "--publish-all", type=bool, help="Publish all exposed ports to random ports"),
    option("--pull", default="missing",
           help='Pull image before running ("always", "missing", "never")'),
    option("-q", "--quiet", type=bool, help="Suppress the pull output"),
    option("--read-only", type=bool,
           help="Mount the container's root filesystem as read only"),
    option("--read-only-tmpfs", type=bool,
           help="With --read-only, keep /run, /tmp and /var/tmp writable"),
    option("--replace", type=bool, help="Remove a container that has this name"),
    option("--restart", default="no",
           help="Restart policy to apply when a container exits"),
    option("--retry", type=int, default=None, help="How often to try a failed pull again"),
    option("--retry-delay", **_TIME, help="Time between tries of a pull (ms|s|m|h)"),
    option("--rm", type=bool,
           help="Automatically remove the container and its associated anonymous volumes "
                "when it exits"),
    option("--rmi", type=bool, help="With --rm, remove the image too where nothing else uses it"),
    option("--rootfs", type=bool, help="IMAGE is a directory that is the container's root"),
    option("--runtime", help="Runtime to use for this container: wherry is the one there is"),
    option("--sdnotify", choices=("container", "conmon", "healthy", "ignore"), default="ignore",
           help="Who tells NOTIFY_SOCKET that the container is ready: its program, wherry "
                "once it runs or is healthy, or nobody"),
    option("--secret", **_LIST,
           help="Give the container a secret: id=NAME,src=FILE or env=VAR"
                "[,type=mount|env,target=,uid=,gid=,mode=]"),
    option("--security-opt", **_LIST, help="Security Options"),
    option("--shm-size", **_BYTES, help="Size of /dev/shm"),
    option("--stop-signal", help="Signal to stop the container"),
    option("--stop-timeout", type=int, default=None,
           help="Timeout (in seconds) to stop a container"),
    option("--storage-opt", **_LIST, hidden=True),
    option("--sysctl", **_MAP, convert=read_sysctl, help="Sysctl options"),
    option("--timeout", type=int, help="Kill the container after this many seconds"),
    option("--tls-verify", type=bool, default=True,
           help="Require HTTPS and a valid certificate of the registry"),
    option("--tmpfs", **_LIST, help="Mount a tmpfs directory"),
    option("-t", "--tty", type=bool, help="Allocate a pseudo-TTY"),
    option("--tz", help="Time zone of the container: a name, or local for the host's"),
    option("--ulimit", **{**_LIST, "metavar": "ulimit"}, convert=checked(limits.read_ulimit),
           help="Ulimit options"),
    option("--umask", help="Umask of the container's first process"),
    option("--unsetenv", **_LIST, help="Leave out a variable of the image or the defaults"),
    option("--unsetenv-all", type=bool, help="Leave out all of them"),
    option("--use-api-socket", type=bool, hidden=True),
    option("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    option("--userns", help="User namespace to use: host, private, auto[:size=], nomap, "
                            "container:NAME, or keep-id[:uid=,gid=]"),
    option("--uts", help="UTS namespace to use"),
    option("--variant", help="Choose images for this variant of the architecture"),
    option("-v", "--volume", **_LIST, help="Bind mount a volume"),
    option("--volume-driver", help="Optional volume driver for the container"),
    option("--volumes-from", **_LIST, help="Mount volumes from the specified container(s)"),
    option("-w", "--workdir", help="Working directory inside the container"),
)
"""What `create` and `run` share."""

RUN = (
    option("-d", "--detach", type=bool,
           help="Run container in background and print container ID"),
    option("--detach-keys", help="Override the key sequence for detaching a container"),
    option("--explain", bare="text", choices=("text", "json"),
           help="Show the namespaces, mounts, limits and rights that the container would have"),
    option("--sig-proxy", type=bool, default=True,
           help="Proxy received signals to the process"),
)
"""What `run` has beside them."""
# fmt: on
