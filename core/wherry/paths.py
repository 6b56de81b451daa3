"""Every directory and file name that wherry keeps, spelled once.

    DATA   images, containers and volumes; survives a reboot
    RUN    sockets and process state; gone after a reboot

DATA is `/var/lib/wherry` and RUN `/run/wherry` for root; for others platformdirs'
user data path and runtime path. `WHERRY_ROOT` moves both below one directory.

Paths are strings here: `pathlib` alone costs as much as the interpreter's start.
"""

from __future__ import annotations

import os
import sys

_APP = "wherry"

# DATA and RUN of a process that has become another user since (see `keep`).
_kept: dict[str, str] = {}


def is_root() -> bool:
    """Whether this process is root (never on Windows)."""
    return sys.platform != "win32" and os.geteuid() == 0


def keep() -> None:
    """Stay with today's places when this process becomes root of a user namespace."""
    _kept.update(data=data(), run=run())


def data() -> str:
    """Images, containers and volumes."""
    if kept := _kept.get("data"):
        return kept
    if root := os.environ.get("WHERRY_ROOT"):
        return os.path.join(os.path.abspath(root), "data")
    if sys.platform == "linux":
        # What platformdirs answers here, without its 20 ms; a test holds the two together.
        if is_root():
            return f"/var/lib/{_APP}"
        home = os.environ.get("XDG_DATA_HOME", "").strip()
        return os.path.join(home or os.path.expanduser("~/.local/share"), _APP)
    import platformdirs

    return platformdirs.user_data_dir(_APP, appauthor=False)


def run() -> str:
    """Sockets and process state."""
    if kept := _kept.get("run"):
        return kept
    if root := os.environ.get("WHERRY_ROOT"):
        return os.path.join(os.path.abspath(root), "run")
    if sys.platform == "linux":
        if is_root():
            return f"/run/{_APP}"
        return _runtime_dir()
    import platformdirs

    return platformdirs.user_runtime_dir(_APP, appauthor=False)


def _runtime_dir() -> str:
    """Ours in XDG_RUNTIME_DIR where that is ours; `su`, cron and CI leave none or another's.

    Nobody else may write to the directory that ours is in, or ours could be replaced; /tmp
    is sticky.
    """
    if sys.platform == "win32":
        raise NotImplementedError
    uid = os.getuid()
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        try:
            status = os.stat(candidate) if candidate else None
        except OSError:
            continue
        if status is not None and status.st_uid == uid and not status.st_mode & 0o022:
            return os.path.join(candidate, _APP)
    return f"/tmp/{_APP}-{uid}"


def config() -> str:
    """docker's configuration directory, which wherry shares (`config.json`, `certs.d`)."""
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def certificate_parents() -> tuple[str, ...]:
    """The directories that may hold a `certs.d`, docker's and podman's among them."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return (
        "/etc/docker",
        "/etc/containers",
        f"{home}/docker",
        f"{home}/containers",
        config(),
    )


def manifest_lists() -> str:
    """The lists of manifests that are put together here."""
    return os.path.join(config(), "manifests")


def cache() -> str:
    """What can be made again: compiled filters, package lists."""
    return os.path.join(data(), "cache")


def images() -> str:
    """The image store: an OCI image layout."""
    return os.path.join(data(), "images")


def layers() -> str:
    """Unpacked layers, one directory per diff id."""
    return os.path.join(data(), "layers")


def build_cache() -> str:
    """Which layers the steps of builds have made."""
    return os.path.join(data(), "build-cache")


def build_mounts() -> str:
    """What cache mounts of builds hold."""
    return os.path.join(build_cache(), "mounts")


def build_contexts() -> str:
    """Copies of the contexts that another host sends."""
    return os.path.join(data(), "build-contexts")


def blob_sources() -> str:
    """The repositories that are known to have blobs: a hint for pushes."""
    return os.path.join(data(), "blob-sources")


def containers() -> str:
    return os.path.join(data(), "containers")


def container(container_id: str) -> str:
    """What a container keeps: its record, bundle, logs and writable layer."""
    return os.path.join(containers(), container_id)


def container_names() -> str:
    """One symbolic link per container name, to its id."""
    return os.path.join(data(), "names")


def volumes() -> str:
    return os.path.join(data(), "volumes")


def networks() -> str:
    return os.path.join(data(), "networks")


def secrets() -> str:
    return os.path.join(data(), "secrets")


def events() -> str:
    """The event log."""
    return os.path.join(data(), "events.jsonl")


def run_container(container_id: str) -> str:
    """What lives no longer than a container's process: socket, pid, exec fifo."""
    return os.path.join(run(), "containers", container_id)


def run_secrets(container_id: str) -> str:
    """The contents of a container's secrets: in memory, and kept from one run to the next."""
    return os.path.join(run(), "secrets", container_id)


def image_mounts() -> str:
    """Images that are mounted on the host."""
    return os.path.join(run(), "images")


def oci_root() -> str:
    """Where `wherry oci` keeps the state of containers that others manage."""
    return os.path.join(run(), "oci")


def runtime() -> str:
    """The OCI runtime's state of our own containers."""
    return os.path.join(run(), "runtime")


def machines() -> str:
    """Our virtual machines: records, keys and data disks."""
    return os.path.join(data(), "machines")


def machine(name: str) -> str:
    """What a machine keeps: its record, keys, logs and data disk."""
    return os.path.join(machines(), name)


def run_machine(name: str) -> str:
    """What lives no longer than a machine's supervisor: its sockets and its state."""
    return os.path.join(run(), "machines", name)
