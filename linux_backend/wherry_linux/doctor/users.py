"""User namespaces, and the ids and groups that a user can bring into them."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from wherry.errors import WherryError
from wherry_linux import constants as c
from wherry_linux import idmap
from wherry_linux.doctor.finding import Finding, install, read, set_sysctl, user_name
from wherry_linux.userns import in_child, run_unshared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.oci.runtime_spec import IDMapping

_ENOUGH = 65536


def user_namespaces() -> Iterator[Finding]:
    uid, gid = os.geteuid(), os.getegid()
    own: list[list[IDMapping]] = [
        [{"containerID": 0, "hostID": number, "size": 1}] for number in (uid, gid)
    ]
    maps = (own[0], own[1]) if uid else idmap.identity_maps()
    try:
        in_child(lambda: None, c.CLONE_NEWUSER | c.CLONE_NEWNS, maps)
    except WherryError as error:
        text, mend = _why_none(error)
        yield Finding(
            subject="user namespaces",
            verdict="missing" if uid else "limited",
            text=text,
            mend=mend,
            who="administrator" if mend else "",
            meanwhile="containers as root: sudo wherry run …"
            if uid
            else "containers run without one, as with --userns host",
        )
        return
    yield Finding(subject="user namespaces", verdict="ok", text="can be made")


def _why_none(error: WherryError) -> tuple[str, str]:
    """The setting that forbids them, and the line that allows them."""
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor lets only programs with a profile of their own make them",
            _apparmor_profile(os.path.realpath(sys.executable)),
        )
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return (
            "the kernel allows them to root alone (kernel.unprivileged_userns_clone)",
            set_sysctl("kernel.unprivileged_userns_clone", "1"),
        )
    if read("/proc/sys/user/max_user_namespaces") == "0":
        return (
            "their number is limited to none (user.max_user_namespaces)",
            set_sysctl("user.max_user_namespaces", "65536"),
        )
    if getattr(error, "errno", None) == errno.ENOSPC:
        return (
            "all that may be made are in use, or they are nested too deeply",
            set_sysctl("user.max_user_namespaces", "65536"),
        )
    for path, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(path):
            return f"cannot be made: this is a {kind} container, which forbids it", ""
    return f"cannot be made: {error.message}", ""


def _apparmor_profile(program: str) -> str:
    """The line that gives this interpreter, and no other program, what it needs."""
    name = "wherry-" + os.path.basename(program)
    rules = f"abi <abi/4.0>,\\nprofile {name} {program} flags=(unconfined) {{\\n  userns,\\n}}\\n"
    file = f"/etc/apparmor.d/{name}"
    return f"printf '{rules}' | sudo tee {file} && sudo apparmor_parser -r {file}"


def subordinate_ids() -> Iterator[Finding]:
    uid, user = os.geteuid(), user_name()
    fewer = "containers run with the one id 0; other owners of an image's files become root"
    absent = [name for name in ("newuidmap", "newgidmap") if idmap.find_program(name) is None]
    if absent:
        yield Finding(
            subject="subordinate ids",
            verdict="limited",
            text=f"{' and '.join(absent)} cannot be found",
            mend=install("uidmap", dnf="shadow-utils", zypper="shadow", pacman="shadow",
                         apk="shadow-uidmap"),
            who="administrator",
            meanwhile=fewer,
        )  # fmt: skip
        return
    granted = [
        (path, sum(count for _, count in idmap.subordinate_ids(path, uid)))
        for path in ("/etc/subuid", "/etc/subgid")
    ]
    short = [f"{path} grants {user} {count} ids" for path, count in granted if count < _ENOUGH]
    some = all(count for _, count in granted)
    if short and not some:
        yield _short(" and ".join(short), user, fewer)
        return
    try:
        run_unshared(lambda: None)
    except WherryError as error:
        yield Finding(
            subject="subordinate ids",
            verdict="missing",
            text=f"{error.message}: it may have lost its setuid bit, or this user"
            " namespace lacks the ids",
            mend=f"sudo chmod u+s {idmap.find_program('newuidmap')}"
            f" {idmap.find_program('newgidmap')}",
            who="administrator",
        )
        return
    if short:
        yield _short(" and ".join(short), user, "images whose ids are lower than that run")
        return
    yield Finding(
        subject="subordinate ids",
        verdict="ok",
        text=f"{min(count for _, count in granted)}, and newuidmap works",
    )


def _short(text: str, user: str, meanwhile: str) -> Finding:
    first = free_range()
    last = first + _ENOUGH - 1
    if any(line.startswith(f"{user}:") for line in read("/etc/passwd").splitlines()):
        mend = f"sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}"
    else:
        # usermod knows local users alone, not those of a directory service.
        mend = f"echo {user}:{first}:{_ENOUGH} | sudo tee -a /etc/subuid /etc/subgid"
    return Finding(
        subject="subordinate ids",
        verdict="limited",
        text=text,
        mend=mend,
        who="administrator",
        meanwhile=meanwhile,
    )


def free_range() -> int:
    """The first of so many ids that no user has been granted (subuid(5))."""
    end = 100_000
    for path in ("/etc/subuid", "/etc/subgid"):
        for line in read(path).splitlines():
            fields = line.split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                end = max(end, int(fields[1]) + int(fields[2]))
    return end


def groups() -> Iterator[Finding]:
    others = sorted(set(os.getgroups()) - {os.getegid()})
    if not others:
        return
    import grp

    names = []
    for gid in others:
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.append(str(gid))
    yield Finding(
        subject="groups",
        verdict="limited",
        text=f"what this user may open as a member of {', '.join(names)}"
        " (devices, shared directories) a container may not",
        mend="wherry run --group-add keep-groups …",
        who="you",
    )
