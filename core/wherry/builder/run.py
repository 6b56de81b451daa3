"""RUN as a step of a stage: what it is given, and what its cache key says of it."""

from __future__ import annotations

from wherry.builder import config as configs
from wherry.builder.parser import is_heredoc
from wherry.builder.running import SCRIPTS, Run, run_step
from wherry.builder.stage import PROXIES
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.builder.instructions import Instruction
    from wherry.builder.stage import StageBuild, Steps

_NETWORKS = {"default": "", "none": "none", "host": "host"}


def steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Run a command, and have what it changes as a layer."""
    build = stage.build
    argv = command_line(stage, instruction)
    hidden = {name: text for name, text in build.request.args.items() if name in PROXIES}
    known = {**hidden, **stage.variables()}
    known.setdefault("PATH", configs.DEFAULT_PATH)
    run = Run(
        argv=tuple(argv),
        env=tuple(f"{name}={text}" for name, text in known.items()),
        user=stage.config.get("User") or "",
        directory=configs.working_directory(stage.config),
        host_config=_host_config(stage, instruction),
        script=script_of(instruction),
    )
    told = tuple(f"{name}={text}" for name, text in known.items() if name not in hidden)
    facts = ["RUN", argv, run.script, told, run.user, run.directory, dict(run.host_config)]
    layers, document = stage.layers, stage.document

    def work() -> dict[str, Any]:
        return run_step(build.engine, layers, run, document, latest=build.latest)

    record = yield stage.cached_step(stage.called(_shown(instruction)), facts, work, instruction)
    stage.add_layer(created_by(stage, argv), record)


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
    bodies = "".join(f"\n{each.content}{each.name}" for each in instruction.heredocs)
    return [*shell, text + bodies]


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
    network = instruction.flag("network") or request.network or "default"
    if network not in _NETWORKS:
        raise UsageError(f"unsupported network mode {network!r}: default, none or host")
    host: dict[str, Any] = {"NetworkMode": _NETWORKS[network]}
    if request.hosts:
        host["ExtraHosts"] = list(request.hosts)
    if request.shm_size:
        host["ShmSize"] = request.shm_size
    if request.ulimits:
        host["Ulimits"] = [dict(one) for one in request.ulimits]
    return host
