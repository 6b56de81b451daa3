"""Named and anonymous volumes.

    volumes/<name>/volume.json   driver options, labels, when it was made
    volumes/<name>/_data         what is mounted
    volumes/<name>/copying       there while an image's files are being copied into it
    volumes/.<name>.<pid>        being made or being removed

A volume appears and goes by a rename, so it is there whole or not at all. The
directory `volumes` is a lock: shared while a container that uses volumes comes into
being, exclusive while it is decided whether a volume may go.

What a `local` volume's options ask to mount is mounted where it is used, in the mount
namespace of the container; nothing is ever mounted on the host.
"""

from __future__ import annotations

import errno
import os
import time

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.container.mount import check_volume_name
from wherry.errors import Conflict, CorruptState, NotFound, Unsupported, UsageError
from wherry.files import Lock, make_dir, read_json, storage_error, whole, write_json
from wherry.shapes import TEXTS
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import Mount

    Users = Callable[[], Mapping[str, Sequence[str]]]
    Unshared = Callable[[Callable[[], Any]], Any]

ANONYMOUS = "com.docker.volume.anonymous"
"""docker's label of the volumes that nobody named."""

_SHAPE = {
    "CreatedAt!": str,
    "Labels": TEXTS,
    "Options": {"type": str, "o": str, "device": str},
}
_OPTIONS = ("type", "o", "device")
# What an unprivileged user may mount (FS_USERNS_MOUNT), beside binds.
_UNPRIVILEGED = ("none", "bind", "tmpfs")


@value
class Volume:
    """A volume of the `local` driver."""

    name: str
    directory: str
    created: str
    labels: Mapping[str, str] | None
    options: Mapping[str, str] | None

    @property
    def mountpoint(self) -> str:
        """Where its files are, unless its options say otherwise."""
        return os.path.join(self.directory, "_data")

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS in (self.labels or ())

    @property
    def files(self) -> str | None:
        """The host directory that is mounted; None where it is a file system of its own."""
        options = self.options or {}
        if not options:
            return self.mountpoint
        return options["device"] if is_bind(options) else None

    def to_oci(self, destination: str) -> Mount:
        """The mount of it in a container."""
        options = self.options or {}
        words = [word for word in options.get("o", "").split(",") if word]
        if self.files is not None:
            flags = [word for word in words if word not in ("bind", "rbind")]
            kind = "bind" if options and "rbind" not in words else "rbind"
            return {
                "destination": destination,
                "type": "bind",
                "source": self.files,
                "options": [kind, "rprivate", *flags],
            }
        return {
            "destination": destination,
            "type": options["type"],
            "source": options["device"],
            "options": [_resolve_address(word) for word in words],
        }

    def inspect(self) -> dict[str, Any]:
        """What docker's `volume inspect` shows."""
        return {
            "CreatedAt": self.created,
            "Driver": "local",
            "Labels": self.labels,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": self.options,
            "Scope": "local",
        }


def is_bind(options: Mapping[str, str]) -> bool:
    words = options.get("o", "").split(",")
    return options.get("type") in ("none", "bind") and ("bind" in words or "rbind" in words)


def _resolve_address(word: str) -> str:
    """`addr=` of a network file system with a number: the kernel looks up no names."""
    key, _, host = word.partition("=")
    if key != "addr":
        return word
    import socket

    try:
        return f"addr={socket.getaddrinfo(host, None)[0][4][0]}"
    except OSError as error:
        raise NotFound(f"cannot look up {host}: {error.strerror}") from error


class VolumeStore:
    """The volumes below `root`, for many processes at once."""

    def __init__(self, root: str | None = None, unshared: Unshared | None = None) -> None:
        """`unshared` runs a function where the ids of containers are this process's own."""
        self.root = root or paths.volumes()
        # The event log tells of the volumes that are kept beside it.
        self._is_logged = root is None
        self._unshared: Unshared = unshared or (lambda function: function())

    def held(self) -> Lock:
        """Keeps every volume from being removed until the container that uses it is recorded."""
        return Lock(make_dir(self.root, 0o711), shared=True)

    def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume `name`, made if it is not there; without a name, an anonymous one."""
        if driver not in ("", "local"):
            raise NotFound(
                f'error looking up volume plugin {driver}: plugin "{driver}" not found',
                hint="the one volume driver is local",
            )
        if not name:
            name = os.urandom(32).hex()
            labels = {**(labels or {}), ANONYMOUS: ""}
        check_volume_name(name)
        try:
            found = self.find(name)
        except NotFound:
            _check_options(options or {})
            return self._make(name, options, labels)
        if options and dict(options) != dict(found.options or {}):
            raise Conflict(
                f"volume name is in use: {name} exists with other options",
                hint=f"`wherry volume inspect {name}` shows them",
            )
        return found

    def _make(
        self, name: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
    ) -> Volume:
        make_dir(self.root, 0o711)
        draft = os.path.join(self.root, f".{name}.{os.getpid()}")
        fields = {
            "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Labels": None if labels is None else dict(labels),
            "Options": dict(options) if options else None,
        }
        try:
            os.mkdir(draft, 0o711)
            os.mkdir(os.path.join(draft, "_data"), 0o755)
            # A umask must not close the volume to the container's users.
            os.chmod(os.path.join(draft, "_data"), 0o755)
            write_json(os.path.join(draft, "volume.json"), fields, promptly=True)
            os.rename(draft, os.path.join(self.root, name))
        except OSError as error:
            remove_tree(draft)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise storage_error(error, f"make volume {name}") from error
            # Another process made it in the meantime.
        else:
            self._event("create", name)
        return self.find(name)

    def _event(self, action: str, name: str) -> None:
        if self._is_logged:
            from wherry import events

            events.record("volume", action, name, {"driver": "local"})

    def find(self, name: str) -> Volume:
        """The volume `name`. Raises NotFound."""
        check_volume_name(name)
        directory = os.path.join(self.root, name)
        try:
            fields = read_json(os.path.join(directory, "volume.json"), _SHAPE)
            return Volume(
                name=name,
                directory=directory,
                created=fields["CreatedAt"],
                labels=fields.get("Labels"),
                options=fields.get("Options"),
            )
        except FileNotFoundError:
            raise NotFound(
                f"No such volume: {name}", hint="`wherry volume ls` lists them"
            ) from None
        except CorruptState as error:
            error.hint = f"to give the volume up: wherry volume rm {name}"
            raise

    def volumes(self, damaged: list[CorruptState] | None = None) -> list[Volume]:
        """All whole volumes, by name; what is wrong with others in `damaged`."""
        return whole(self._names(), self.find, damaged)

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def remove(self, name: str, users: Users, *, force: bool = False) -> bool:
        """Remove a volume; whether it was there. Raises Conflict where a container uses it.

        `users` tells which containers use which volumes. `force` takes a missing volume
        for a removed one.
        """
        check_volume_name(name)
        with Lock(make_dir(self.root, 0o711)):
            if holders := users().get(name):
                raise Conflict(
                    f"remove {name}: volume is in use - [{', '.join(holders)}]",
                    hint="remove the container first: `wherry rm`",
                )
            # A damaged record must not keep its volume from being removed.
            if not os.path.isdir(os.path.join(self.root, name)):
                if force:
                    return False
                self.find(name)
            grave = self._bury(name)
        self._delete(grave)
        return True

    def remove_unused(self, names: Sequence[str], users: Users) -> list[str]:
        """Remove those volumes that no container uses; the names of the removed."""
        with Lock(make_dir(self.root, 0o711)):
            used = users()
            graves = {
                name: self._bury(name)
                for name in names
                if not used.get(name) and os.path.isdir(os.path.join(self.root, name))
            }
        for grave in graves.values():
            self._delete(grave)
        return list(graves)

    def _bury(self, name: str) -> str:
        grave = os.path.join(self.root, f".{name}.{os.getpid()}")
        os.rename(os.path.join(self.root, name), grave)
        self._event("destroy", name)
        return grave

    def _delete(self, directory: str) -> None:
        try:
            remove_tree(directory)
        except PermissionError:
            # Files of subordinate ids.
            self._unshared(lambda: remove_tree(directory))

    def sweep(self) -> None:
        """Remove what processes that were killed left half made or half removed."""
        try:
            left = [name for name in os.listdir(self.root) if name.startswith(".")]
        except FileNotFoundError:
            return
        for name in left:
            pid = name.rpartition(".")[2]
            if not (pid.isdigit() and os.path.exists(f"/proc/{pid}")):
                self._delete(os.path.join(self.root, name))


def _check_options(options: Mapping[str, str]) -> None:
    """Raise where docker's `local` driver would."""
    for key in options:
        if key == "size":
            raise Unsupported(
                "quota size requested but no quota support",
                hint="-o type=tmpfs -o device=tmpfs -o o=size=… makes a volume in memory",
            )
        if key not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise UsageError(f'invalid option: "{key}"', hint=f"the options are {known}")
    if not options:
        return
    for key in ("device", "type"):
        if not options.get(key):
            raise UsageError(f'missing required option: "{key}"')
    if is_bind(options):
        if not os.path.isabs(options["device"]):
            raise UsageError(f"the device of a bind is an absolute path: {options['device']}")
    elif options["type"] not in _UNPRIVILEGED and not paths.is_root():
        raise Unsupported(
            f"a volume of type {options['type']} can be mounted by root only",
            hint="an unprivileged user can have type=tmpfs, or type=none with o=bind",
        )
