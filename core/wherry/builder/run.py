"""RUN as a step of a stage: what it is given, and what its cache key says of it."""

from __future__ import annotations

import posixpath

from wherry.builder import config as configs
from wherry.builder.copying import Placement, copy_changes
from wherry.builder.layers import Scratch, pack
from wherry.builder.mounts import Given, Mount, read_mounts
from wherry.builder.parser import bodies, is_heredoc
from wherry.builder.running import SCRIPTS, Run, run_step
from wherry.builder.sources import find_source
from wherry.builder.stage import PROXIES, Needs, Step
from wherry.builder.tree import digest
from wherry.builder.words import process_word
from wherry.errors import UsageError
from wherry.image.build_cache import key_of
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from wherry.builder.build import Build
    from wherry.builder.instructions import Instruction
    from wherry.builder.sources import Source
    from wherry.builder.stage import StageBuild, Steps
    from wherry.builder.tree import Tree

    Seen = list[tuple[Mount, Source | None]]

_NETWORKS = {"default": "", "none": "none", "host": "host"}


@value
class Files:
    """What a bind mount shows of a directory of the host."""

    tree: Tree
    # As `Tree.select` has it.
    selected: list[tuple[str, str]]
    # The digest of names, contents and modes: times do not count.
    content: str
    # The path of the one file that is mounted, in its layer; "" for a directory.
    inside: str


def steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Run a command, and have what it changes as a layer."""
    build = stage.build
    name = stage.called(_shown(instruction))
    argv = command_line(stage, instruction)
    hidden = _proxies(build)
    known = {**hidden, **stage.variables()}
    known.setdefault("PATH", configs.DEFAULT_PATH)
    host_config = _host_config(stage, instruction)
    run = Run(
        argv=tuple(argv),
        env=tuple(f"{name}={text}" for name, text in known.items()),
        user=stage.config.get("User") or "",
        directory=configs.working_directory(stage.config),
        host_config={**host_config, **build.request.resources},
        own_config=build.request.own_config,
        script=script_of(instruction),
    )
    seen = yield from _seen(stage, instruction)
    told = [f"{name}={text}" for name, text in known.items() if name not in hidden]
    facts: list[Any] = [
        "RUN",
        argv,
        run.script,
        told,
        run.user,
        run.directory,
        host_config,
        dict(run.own_config),
    ]
    facts += [[*mount.facts(), source.diff_ids if source else None] for mount, source in seen]
    layers, document = stage.layers, stage.document
    # What directories hold is not known before they are read.
    directories = [pair for pair in seen if pair[0].kind == "bind" and _is_directory(pair[1])]

    def work(facts: list[Any]) -> dict[str, Any]:
        files = {mount.target: _find(build, mount, source) for mount, source in directories}
        key = stage.key([*facts, [[each.content, each.inside] for each in files.values()]])
        if not stage.ignores_cache and (found := build.cached(key)):
            return found
        packed = {target: (_pack(build, each), each.inside) for target, each in files.items()}

        def carry_out() -> dict[str, Any]:
            with Given(build) as given:
                for mount, source in seen:
                    given.add(mount, source, packed.get(mount.target, ("", "")))
                return run_step(build.engine, layers, run, document, given, latest=build.latest)

        return build.carry_out(key, name, carry_out, always=stage.ignores_cache)

    key = stage.key([*facts, []])
    look = not directories and not stage.ignores_cache
    record = yield Step(
        name=name,
        look=(lambda: build.cached(key)) if look else None,
        work=lambda: work(facts),
        instruction=instruction,
        identity=key if look else stage.identity(key),
    )
    stage.add_layer(created_by(stage, argv), record)


def _proxies(build: Build) -> dict[str, str]:
    """The proxies that every step knows, in both spellings."""
    given = {name: text for name, text in build.request.args.items() if name in PROXIES}
    both = {
        spelling: text for name, text in given.items() for spelling in (name.upper(), name.lower())
    }
    return {**both, **given}


def _seen(stage: StageBuild, instruction: Instruction) -> Generator[Step | Needs, Any, Seen]:
    """The mounts of the instruction, and where those that have files get them from."""
    known, escape = stage.variables(), stage.build.dockerfile.escape
    found: Seen = []
    for mount in read_mounts(
        instruction,
        lambda text: process_word(text, known, escape=escape),
        configs.working_directory(stage.config),
    ):
        source = None
        if mount.kind == "bind" or (mount.kind == "cache" and mount.origin):
            patterns = (mount.source or ".",)
            source = yield from find_source(stage, mount.origin, patterns, instruction)
        found.append((mount, source))
    return found


def _is_directory(source: Source | None) -> bool:
    return source is not None and source.diff_ids is None


def _find(build: Build, mount: Mount, source: Source | None) -> Files:
    """A directory's files, or the one that is mounted."""
    assert source is not None
    runtime = build.engine.runtime
    with Scratch(runtime) as scratch:
        tree = source.open(runtime, scratch.place("read"))
    selected = tree.select((mount.source or ".",))
    if not selected:
        raise UsageError(f"nothing to mount: no file is called {mount.source}")
    is_file = not tree.is_directory(selected[0][1])
    return Files(
        tree=tree,
        selected=selected,
        content=digest(tree, selected, with_owners=False),
        inside=posixpath.basename(mount.source) if is_file else "",
    )


def _pack(build: Build, files: Files) -> str:
    """Have files as a layer; its diff id, "" where there are none."""
    placement = Placement(target="/", moment=build.latest)

    def work() -> dict[str, Any]:
        return pack(
            build.engine,
            (),
            lambda base, _: copy_changes(base, files.tree, files.selected, placement),
            latest=build.latest,
        )

    key = key_of(["MOUNT", files.content, build.latest], ())
    record = build.carry_out(key, "files of a mount", work, always=False)
    record = record.get("record", record)
    return str(record["DiffId"]) if record["Count"] else ""


def _shown(instruction: Instruction) -> str:
    if not instruction.heredocs:
        return instruction.text
    first = instruction.heredocs[0].text.strip().splitlines()
    return f"{instruction.text} ({first[0] if first else ''}{'...' if len(first) > 1 else ''})"


def command_line(stage: StageBuild, instruction: Instruction) -> list[str]:
    """The words of the process. Heredocs are the shell's, but for one that is all there is."""
    if not instruction.heredocs:
        return configs.command_line(stage.config, instruction)
    text = instruction.words[0]
    shell = configs.shell_of(stage.config)
    if is_heredoc(text) and len(instruction.heredocs) == 1:
        script = instruction.heredocs[0].text
        if script.startswith("#!"):
            return [f"{SCRIPTS}/{instruction.heredocs[0].name}"]
        return [*shell, script]
    return [*shell, text + bodies(instruction.heredocs)]


def script_of(instruction: Instruction) -> str:
    """The heredoc that is run as a program of its own: it names its interpreter."""
    if len(instruction.heredocs) != 1 or not is_heredoc(instruction.words[0]):
        return ""
    script = instruction.heredocs[0].text
    return script if script.startswith("#!") else ""


def created_by(stage: StageBuild, argv: list[str]) -> str:
    """What the history says: the arguments that the command knew, and the command."""
    told = [f"{name}={text}" for name, text in stage.args.items() if name not in PROXIES]
    prefix = f"|{len(told)} {' '.join(told)} " if told else ""
    return f"RUN {prefix}{' '.join(argv)}"


def _host_config(stage: StageBuild, instruction: Instruction) -> dict[str, Any]:
    request = stage.build.request
    asked = instruction.flag("network")
    network = asked or request.network or "default"
    if network not in _NETWORKS:
        raise UsageError(
            f"unsupported network mode {network!r}", hint="it is default, none or host"
        )
    # Who runs a build may give it the host's network; a Dockerfile cannot take it.
    if asked == "host" and request.network != "host":
        _require(request.allow, "network.host")
    host: dict[str, Any] = {**request.host_config, "NetworkMode": _NETWORKS[network]}
    security = instruction.flag("security") or "sandbox"
    if security == "insecure":
        _require(request.allow, "security.insecure")
        host["Privileged"] = True
    elif security != "sandbox":
        raise UsageError(f'security "{security}" is not valid')
    if devices := instruction.flags.get("device", ()):
        _require(request.allow, "device")
        asked_for = {"Driver": "cdi", "DeviceIDs": list(devices)}
        host["DeviceRequests"] = [*host.get("DeviceRequests", ()), asked_for]
    return host


def _require(allowed: tuple[str, ...], entitlement: str) -> None:
    if entitlement not in allowed:
        raise UsageError(
            f"{entitlement} is not allowed",
            hint=f"--allow {entitlement} lets the Dockerfile have it",
        )
