"""`RUN --mount`: what a step sees beside its layers, and leaves nothing of in its own."""

from __future__ import annotations

import os
import posixpath

from wherry import paths
from wherry.builder.agents import Relay
from wherry.builder.errors import syntax_error
from wherry.builder.layers import Scratch
from wherry.container.copy import copy_tree, give_to
from wherry.errors import Conflict, NotFound, UsageError
from wherry.files import Lock, make_dir
from wherry.lean import dump_json, sha256
from wherry.values import value
from wherry.words import read_bool, read_bytes, read_integer, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.builder.build import Build
    from wherry.builder.instructions import Instruction
    from wherry.builder.sources import Source

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_KEYS = {
    "bind": ("from", "source", "target", "rw"),
    "cache": ("id", "target", "ro", "sharing", "from", "source", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
    "secret": ("id", "source", "target", "env", "required", "mode", "uid", "gid"),
    "ssh": ("id", "target", "required", "mode", "uid", "gid"),
}
_SPELLINGS = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readwrite": "rw",
    "readonly": "ro",
}
_SHARING = ("shared", "private", "locked")


@value
class Mount:
    """One `--mount`, as it was written, variables replaced."""

    kind: str
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    readonly: bool = False
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    required: bool = False
    env: str = ""
    size: int = 0

    def facts(self) -> list[Any]:
        """What of it decides what the step does; a secret's content does not."""
        return [self.kind, self.target, self.source, self.origin, self.readonly, self.env]


def read_mounts(
    instruction: Instruction, expand: Callable[[str], str], directory: str
) -> list[Mount]:
    """The mounts of a RUN; relative targets are below `directory`. Raises DockerfileError."""
    found = []
    for text in instruction.flags.get("mount", ()):
        try:
            found.append(_read(text, expand, directory))
        except ValueError as error:
            raise syntax_error(str(error), instruction.first, instruction.last) from error
        except UsageError as error:
            raise syntax_error(
                error.message, instruction.first, instruction.last, hint=error.hint
            ) from error
    return found


def _read(text: str, expand: Callable[[str], str], directory: str) -> Mount:
    fields: dict[str, str] = {}
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        key = key.strip().lower()
        key = _SPELLINGS.get(key, key)
        if not equals and key not in ("rw", "ro", "required"):
            raise UsageError(f"invalid field '{field}' must be a key=value pair")
        fields[key] = expand(content) if equals else "true"
    kind = fields.pop("type", "bind")
    if kind not in KINDS:
        raise UsageError(f'unsupported mount type "{kind}"', hint=f"it is {', '.join(KINDS)}")
    if kind == "bind" and "ro" in fields:
        fields["rw"] = "false" if read_bool(fields.pop("ro")) else "true"
    if kind == "cache" and "rw" in fields:
        fields["ro"] = "false" if read_bool(fields.pop("rw")) else "true"
    for key in fields:
        if key not in _KEYS[kind]:
            raise UsageError(
                f"unexpected key '{key}' for mount type '{kind}'",
                hint=f"it takes {', '.join(_KEYS[kind])}",
            )
    return _mount(kind, fields, directory)


def _mount(kind: str, fields: dict[str, str], directory: str) -> Mount:
    target = fields.get("target", "")
    identity = fields.get("id", "")
    source = fields.get("source", "")
    if kind == "secret":
        identity = identity or source or posixpath.basename(target)
        if not identity:
            raise UsageError("a secret mount needs an id or a target")
        if not target and not fields.get("env"):
            target = f"/run/secrets/{posixpath.basename(identity)}"
    elif kind != "ssh" and not target:
        raise UsageError(f"a {kind} mount needs a target")
    if target:
        target = posixpath.normpath(posixpath.join(directory, target))
        if target == "/":
            raise UsageError(f"invalid mount target {target!r}")
    sharing = fields.get("sharing", "shared")
    if sharing not in _SHARING:
        raise UsageError(f'unsupported sharing value "{sharing}"')
    return Mount(
        kind=kind,
        target=target,
        source=posixpath.normpath(f"/{source}").lstrip("/"),
        origin=fields.get("from", ""),
        id=identity or ("default" if kind == "ssh" else target),
        readonly=not read_bool(fields["rw"]) if "rw" in fields else _is_readonly(kind, fields),
        sharing=sharing,
        mode=_mode(fields["mode"]) if "mode" in fields else None,
        uid=read_integer(fields.get("uid", "0")),
        gid=read_integer(fields.get("gid", "0")),
        required=read_bool(fields.get("required", "false")),
        env=fields.get("env", ""),
        size=read_bytes(fields["size"]) if "size" in fields else 0,
    )


def _mode(text: str) -> int:
    if not text or not set(text) <= set("01234567"):
        raise UsageError(f"invalid value for mode: {text!r}", hint="a mode is an octal number")
    return int(text, 8)


def _is_readonly(kind: str, fields: dict[str, str]) -> bool:
    return kind == "bind" or read_bool(fields.get("ro", "false"))


class Given:
    """The mounts of one step in the words of a create body; a context manager.

    It holds the locks of cache mounts, and what leads to agents. Used in the step's own process.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._locks: list[Lock] = []
        self._relays: list[Relay] = []
        self._scratch = Scratch(build.engine.runtime)
        self.mounts: list[dict[str, Any]] = []
        self.tmpfs: dict[str, str] = {}
        self.secrets: list[dict[str, Any]] = []
        self.env: list[str] = []
        # Layers by the name that a mount has for them.
        self.layers: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Given:
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.close()
        if self._relays:
            self._scratch.__exit__()
        for lock in self._locks:
            lock.__exit__(None, None, None)

    def contents(self) -> dict[str, bytes]:
        """What the secrets hold that are given."""
        return {one["Name"]: self._build.request.secrets[one["Name"]] for one in self.secrets}

    def add(self, mount: Mount, source: Source | None, packed: tuple[str, str]) -> None:
        """Give a mount. `packed` are the layer of a directory's files, and a path in it."""
        if mount.kind == "bind":
            self._bind(mount, source, packed)
        elif mount.kind == "cache":
            self._cache(mount, source)
        elif mount.kind == "tmpfs":
            size = f",size={mount.size}" if mount.size else ""
            self.tmpfs[mount.target] = f"exec{size}"
        elif mount.kind == "secret":
            self._secret(mount)
        else:
            self._ssh(mount)

    def _bind(self, mount: Mount, source: Source | None, packed: tuple[str, str]) -> None:
        layers = source.diff_ids if source is not None else None
        diff_id, inside = packed
        if layers is None:
            layers = (diff_id,) if diff_id else ()
        else:
            inside = mount.source
        if not layers:
            self.tmpfs[mount.target] = "ro" if mount.readonly else ""
            return
        name = f"layers{len(self.layers)}"
        self.layers[name] = layers
        self.mounts.append(
            {
                "Type": "image",
                "Source": name,
                "Target": mount.target,
                "ReadOnly": mount.readonly,
                **({"ImageOptions": {"Subpath": inside}} if inside else {}),
            }
        )

    def _cache(self, mount: Mount, source: Source | None) -> None:
        directory = self._claim(mount)
        data = f"{directory}/data"
        runtime = self._build.engine.runtime
        mode = 0o755 if mount.mode is None else mount.mode

        def make() -> None:
            draft = make_dir(f"{data}.{os.getpid()}.tmp", 0o755)
            if source is not None:
                self._fill(source, mount, draft, make_dir(f"{directory}/source"))
            _give(draft, mount, mode)
            try:
                os.rename(draft, data)
            except OSError:
                if not os.path.isdir(data):
                    raise
                os.rmdir(draft)  # another step was quicker

        if not os.path.isdir(data):
            runtime.unshared(make, mounts=True)
        self.mounts.append(
            {"Type": "bind", "Source": data, "Target": mount.target, "ReadOnly": mount.readonly}
        )

    def _fill(self, source: Source, mount: Mount, target: str, place: str) -> None:
        from wherry.builder.tree import DIRECTORY

        runtime = self._build.engine.runtime
        tree = source.open(runtime, place)
        found = runtime.open_in_root(tree.root, mount.source or ".", flags=DIRECTORY)
        into = os.open(target, DIRECTORY)
        try:
            copy_tree(found, into)
        finally:
            os.close(found)
            os.close(into)

    def _claim(self, mount: Mount) -> str:
        """The directory of a cache mount, locked as it is to be shared."""
        name = sha256(dump_json([mount.id, mount.origin, mount.source]).encode()).hexdigest()
        for number in range(1000):
            directory = make_dir(f"{paths.build_mounts()}/{name}.{number}")
            is_private = mount.sharing == "private"
            lock = Lock(directory, shared=mount.sharing == "shared", wait=not is_private)
            try:
                self._locks.append(lock.__enter__())
            except Conflict:
                continue
            os.utime(directory)
            return directory
        raise Conflict(f"no cache is free for {mount.target}")

    def _secret(self, mount: Mount) -> None:
        if mount.id not in self._build.request.secrets:
            if mount.required:
                raise NotFound(
                    f"secret {mount.id}: not found", hint=f"--secret id={mount.id},src=FILE"
                )
            return
        common = {"Name": mount.id, "UID": mount.uid, "GID": mount.gid}
        if mount.env:
            self.secrets.append({**common, "Type": "env", "Target": mount.env})
        if mount.target:
            mode = 0o400 if mount.mode is None else mount.mode
            self.secrets.append({**common, "Type": "mount", "Target": mount.target, "Mode": mode})

    def _ssh(self, mount: Mount) -> None:
        agents = self._build.request.ssh
        if mount.id not in agents:
            if mount.required:
                raise NotFound(f"unset ssh forward key {mount.id}", hint=f"--ssh {mount.id}")
            return
        count = len(self._relays)
        target = mount.target or f"/run/buildkit/ssh_agent.{count}"
        runtime = self._build.engine.runtime
        path = f"{self._scratch.place('agents')}/{count}"
        self._relays.append(Relay(runtime, path, mount.id, agents[mount.id]))
        mode = 0o600 if mount.mode is None else mount.mode
        runtime.unshared(lambda: _give(path, mount, mode))
        if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in self.env):
            self.env.append(f"SSH_AUTH_SOCK={target}")
        self.mounts.append({"Type": "bind", "Source": path, "Target": target})


def _give(path: str, mount: Mount, mode: int) -> None:
    give_to(path, mount.uid, mount.gid)
    os.chmod(path, mode)
