"""What works here and what does not, with the line that mends it (`wherry doctor`).

Every check tries the thing itself where it can; a kernel's version says little about
a kernel that others have configured, patched or fenced in.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wherry import paths
from wherry.container.overlay import overlay_mount as overlay_entry
from wherry.errors import KernelError, WherryError
from wherry.files import make_dir
from wherry_linux import cgroups, idmap, namespaces
from wherry_linux import constants as c
from wherry_linux.idmapped import file_system, stage
from wherry_linux.mounts import Options
from wherry_linux.overlay import mount_overlay
from wherry_linux.syscalls import mount_setattr, openat2
from wherry_linux.userns import in_child, run_unshared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wherry.oci.runtime_spec import IDMapping, Spec

_RANGES = "--add-subuids 100000-165535 --add-subgids 100000-165535"

Verdict = Literal["ok", "limited", "missing"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check. `mend` is a line to type, or "" where there is nothing to do."""

    subject: str
    verdict: Verdict
    text: str
    mend: str = ""
    # Who can carry out `mend`: the user, or the machine's administrator.
    who: Literal["", "you", "administrator"] = ""


def findings() -> list[Finding]:
    """All checks, for the user who asks."""
    rootless = os.geteuid() != 0
    checks: list[Callable[[], Iterator[Finding]]] = [
        _namespaces,
        _user_namespaces,
        *([_subordinate_ids] if rootless else []),
        _overlay,
        _idmapped_mounts,
        _data_directory,
        *([_runtime_directory] if rootless else []),
        _control_groups,
        _seccomp,
        _mount_calls,
        _network,
        *([_low_ports, _ping, _linger] if rootless else []),
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except (OSError, WherryError) as error:
            found.append(
                Finding(
                    subject=check.__name__.strip("_").replace("_", " "),
                    verdict="missing",
                    text=str(error),
                )
            )
    return found


def _namespaces() -> Iterator[Finding]:
    absent = [kind for kind in namespaces.KINDS if not namespaces.is_supported(kind)]
    if not absent:
        yield Finding(subject="namespaces", verdict="ok", text="the kernel has all eight")
        return
    needed = "Linux 5.6" if absent == ["time"] else "a kernel configured with them"
    yield Finding(
        subject="namespaces",
        verdict="limited",
        text=f"the kernel has no {', '.join(absent)} namespaces; they need {needed}",
    )


def _user_namespaces() -> Iterator[Finding]:
    uid, gid = os.geteuid(), os.getegid()
    own = (
        [{"containerID": 0, "hostID": uid, "size": 1}],
        [{"containerID": 0, "hostID": gid, "size": 1}],
    )
    try:
        in_child(lambda: None, c.CLONE_NEWUSER | c.CLONE_NEWNS, own)  # type: ignore[arg-type]
    except WherryError as error:
        text, mend = _why_no_user_namespace(error)
        yield Finding(
            subject="user namespaces",
            verdict="limited" if uid == 0 else "missing",
            text=text,
            mend=mend,
            who="administrator",
        )
        return
    yield Finding(subject="user namespaces", verdict="ok", text="can be made")


def _why_no_user_namespace(error: WherryError) -> tuple[str, str]:
    """The setting that forbids them, and the line that allows them."""
    settings = (
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor lets only programs with a profile of their own make them",
        ),
        ("kernel/unprivileged_userns_clone", "0", "the kernel allows them to root alone"),
        ("user/max_user_namespaces", "0", "their number is limited to none"),
    )
    for name, forbidding, text in settings:
        if _read(f"/proc/sys/{name}") == forbidding:
            allowing = {"1": "0", "0": "1"}[forbidding]
            if name.startswith("user/"):
                allowing = "65536"
            dotted = name.replace("/", ".")
            file = "/etc/sysctl.d/99-wherry.conf"
            return text, f"echo {dotted}={allowing} | sudo tee {file} && sudo sysctl --system"
    inside = _container()
    if inside:
        return f"cannot be made: this is {inside} that forbids it", ""
    return f"cannot be made: {error.message}", ""


def _container() -> str:
    """What kind of container this process is in, as far as one can tell."""
    if os.path.exists("/.dockerenv"):
        return "a docker container"
    if os.path.exists("/run/.containerenv"):
        return "a podman container"
    return ""


def _subordinate_ids() -> Iterator[Finding]:
    import getpass

    uid, user = os.geteuid(), getpass.getuser()
    missing = [name for name in ("newuidmap", "newgidmap") if idmap.find_program(name) is None]
    if missing:
        yield Finding(
            subject="subordinate ids",
            verdict="limited",
            text=f"{' and '.join(missing)} are not installed: containers have the one id 0",
            mend="sudo apt-get install uidmap",
            who="administrator",
        )
        return
    for path in ("/etc/subuid", "/etc/subgid"):
        size = sum(count for _, count in idmap.subordinate_ids(path, uid))
        if size < 65536:
            yield Finding(
                subject="subordinate ids",
                verdict="limited",
                text=f"{path} grants {user} {size} ids: images with more users than that"
                " have their files given to root",
                mend=f"sudo usermod {_RANGES} {user}",
                who="administrator",
            )
            return
    try:
        run_unshared(lambda: None)
    except WherryError as error:
        yield Finding(
            subject="subordinate ids",
            verdict="missing",
            text=error.message,
            mend="sudo apt-get install --reinstall uidmap",
            who="administrator",
        )
        return
    yield Finding(subject="subordinate ids", verdict="ok", text="65536, and newuidmap works")


def _overlay() -> Iterator[Finding]:
    base = make_dir(paths.data())
    place = tempfile.mkdtemp(prefix="doctor-", dir=base)
    for name in ("lower", "upper", "work", "root"):
        os.mkdir(f"{place}/{name}")

    def attempt() -> None:
        directories = [f"{name}dir={place}/{name}" for name in ("lower", "upper", "work")]
        mount_overlay(Options([*directories, "userxattr"]), f"{place}/root")
        Path(f"{place}/root/file").touch()

    try:
        run_unshared(attempt, mounts=True)
    except WherryError as error:
        yield Finding(
            subject="overlayfs",
            verdict="missing",
            text=f"cannot be mounted on {base} ({file_system(base)}): {error.message}",
            mend="export WHERRY_ROOT=/path/on/a/local/ext4-or-xfs-disk",
            who="you",
        )
    else:
        yield Finding(
            subject="overlayfs", verdict="ok", text=f"works on {base} ({file_system(base)})"
        )
    finally:
        from wherry.container.copy import remove_tree

        run_unshared(lambda: remove_tree(place))


def _idmapped_mounts() -> Iterator[Finding]:
    base = make_dir(paths.data())
    kind = file_system(base)
    if os.geteuid() != 0:
        yield Finding(
            subject="idmapped mounts",
            verdict="limited",
            text=f"the kernel lets only root idmap {kind}: no -v …:idmap here; :U changes owners,"
            " --userns keep-id keeps yours",
        )
        return
    place = tempfile.mkdtemp(prefix="doctor-", dir=base)
    for name in ("lower", "own", "own/upper", "own/work"):
        os.mkdir(f"{place}/{name}")
    overlay = overlay_entry(
        "/", [f"{place}/lower"], upper=f"{place}/own/upper", work=f"{place}/own/work"
    )
    overlay["options"].append("idmap")
    spec: Spec = {"root": {"path": place}, "mounts": [overlay]}
    shifted: list[IDMapping] = [{"containerID": 0, "hostID": 100000, "size": 1}]
    users = idmap.open_users(shifted, shifted)

    def attempt() -> None:
        stage(spec, place, users)
        mount_overlay(Options(spec["mounts"][0]["options"]), spec["root"]["path"])

    try:
        run_unshared(attempt, mounts=True)
    except WherryError as error:
        yield Finding(
            subject="idmapped mounts",
            verdict="limited",
            text=f"--userns auto does not work on {base} ({kind}): {error.message}",
        )
    else:
        yield Finding(
            subject="idmapped mounts",
            verdict="ok",
            text=f"work on {base} ({kind}), below overlayfs too",
        )
    finally:
        os.close(users)
        from wherry.container.copy import remove_tree

        remove_tree(place)


def _data_directory() -> Iterator[Finding]:
    base = make_dir(paths.data())
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    from wherry.human import human_size

    if found.f_flag & os.ST_NOEXEC:
        yield Finding(
            subject="data directory",
            verdict="missing",
            text=f"{base} is mounted noexec: no program of an image can run",
            mend="export WHERRY_ROOT=/path/on/another/disk",
            who="you",
        )
    elif free < 1 << 30:
        yield Finding(
            subject="data directory",
            verdict="limited",
            text=f"{base} has {human_size(free)} free",
            mend="wherry system prune",
            who="you",
        )
    else:
        yield Finding(
            subject="data directory", verdict="ok", text=f"{base} has {human_size(free)} free"
        )


def _runtime_directory() -> Iterator[Finding]:
    directory = paths.run()
    if directory.startswith("/tmp/"):
        yield Finding(
            subject="runtime directory",
            verdict="limited",
            text=f"XDG_RUNTIME_DIR is not set or another user's: {directory} is used,"
            " and outlives the session",
            mend=f"sudo loginctl enable-linger {_user()}",
            who="administrator",
        )
    else:
        yield Finding(subject="runtime directory", verdict="ok", text=directory)


def _user() -> str:
    import getpass

    return getpass.getuser()


def _control_groups() -> Iterator[Finding]:
    base = cgroups.mount_point()
    if base is None:
        yield Finding(
            subject="control groups",
            verdict="missing",
            text="no cgroup v2 is mounted: containers cannot be limited or paused",
            mend="sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1",
            who="administrator",
        )
        return
    path = cgroups.place_for("doctor")
    if path is None:
        yield Finding(
            subject="control groups",
            verdict="limited",
            text="none is delegated to this user: limits and pause do not work",
            mend="sudo mkdir -p /etc/systemd/system/user@.service.d && printf"
            " '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee"
            " /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload",
            who="administrator",
        )
        return
    parent = os.path.dirname(os.path.dirname(base + path))
    offered = set(_read(f"{parent}/cgroup.controllers").split())
    absent = [name for name in ("cpu", "memory", "pids", "io", "cpuset") if name not in offered]
    if absent:
        hybrid = base != "/sys/fs/cgroup"
        yield Finding(
            subject="control groups",
            verdict="limited",
            text=f"pause works; {', '.join(absent)} cannot be limited: "
            + (
                "this host mounts those controllers as cgroup v1"
                if hybrid
                else f"they are not enabled in {parent}"
            ),
            mend="boot with systemd.unified_cgroup_hierarchy=1" if hybrid else "",
            who="administrator" if hybrid else "",
        )
        return
    yield Finding(subject="control groups", verdict="ok", text="cgroup v2, all controllers")


def _seccomp() -> Iterator[Finding]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    if actions:
        yield Finding(subject="seccomp", verdict="ok", text=f"actions: {' '.join(actions)}")
    else:
        yield Finding(
            subject="seccomp",
            verdict="missing",
            text="the kernel has no system call filters: use --security-opt seccomp=unconfined",
        )


def _mount_calls() -> Iterator[Finding]:
    descriptor = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(openat2(descriptor, "/", os.O_PATH, resolve=c.RESOLVE_IN_ROOT))
    except KernelError:
        yield Finding(
            subject="openat2", verdict="missing", text="the kernel is older than Linux 5.6"
        )
        return
    finally:
        os.close(descriptor)
    try:
        run_unshared(_make_root_readonly, mounts=True)
    except WherryError:
        yield Finding(
            subject="mount_setattr",
            verdict="limited",
            text="older than Linux 5.12: read-only binds are not recursive, no idmapped mounts",
        )
        return
    yield Finding(
        subject="mounts", verdict="ok", text="openat2, and recursive read-only by mount_setattr"
    )


def _make_root_readonly() -> None:
    mount_setattr(c.AT_FDCWD, "/", c.AT_RECURSIVE, attr_set=c.MOUNT_ATTR_RDONLY)


def _network() -> Iterator[Finding]:
    helper = next((n for n in ("pasta", "slirp4netns") if idmap.find_program(n)), None)
    if helper is None:
        yield Finding(
            subject="network",
            verdict="limited",
            text="only --network host and --network none: no helper is installed",
            mend="sudo apt-get install passt",
            who="administrator",
        )
    elif not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        there = os.path.exists("/dev/net/tun")
        yield Finding(
            subject="network",
            verdict="limited",
            text=f"{helper} is there, but /dev/net/tun "
            + ("cannot be opened by this user" if there else "does not exist"),
            mend="sudo chmod 666 /dev/net/tun" if there else "sudo modprobe tun",
            who="administrator",
        )
    else:
        yield Finding(subject="network", verdict="ok", text=f"by {helper}")


def _low_ports() -> Iterator[Finding]:
    first = _read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first.isdigit() and int(first) > 80:
        yield Finding(
            subject="published ports",
            verdict="limited",
            text=f"this user may not publish ports below {first}",
            mend="sudo sysctl net.ipv4.ip_unprivileged_port_start=80",
            who="administrator",
        )
    else:
        yield Finding(subject="published ports", verdict="ok", text=f"from {first or 0} on")


def _ping() -> Iterator[Finding]:
    bounds = _read("/proc/sys/net/ipv4/ping_group_range").split()
    if len(bounds) == 2 and not int(bounds[0]) <= os.getegid() <= int(bounds[1]):
        yield Finding(
            subject="ping",
            verdict="limited",
            text="with --network host, ping has no permission",
            mend="sudo sysctl net.ipv4.ping_group_range='0 2147483647'",
            who="administrator",
        )
    else:
        yield Finding(subject="ping", verdict="ok", text="allowed")


def _linger() -> Iterator[Finding]:
    if not os.path.isdir("/run/systemd/system"):
        return
    user = _user()
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        yield Finding(subject="after logout", verdict="ok", text="detached containers go on")
    else:
        yield Finding(
            subject="after logout",
            verdict="limited",
            text="systemd may end detached containers when you log out",
            mend=f"loginctl enable-linger {user}",
            who="you",
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def as_json(found: list[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    return [
        {
            "Subject": finding.subject,
            "Verdict": finding.verdict,
            "Text": finding.text,
            "Mend": finding.mend,
            "Who": finding.who,
        }
        for finding in found
    ]
