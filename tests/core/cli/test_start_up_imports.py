"""Start-up is interface: what `wherry run` and its like import before they do anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[3] / "core"

# Each costs milliseconds: the interpreter itself takes eleven.
FORBIDDEN = {
    "asyncio", "click", "collections", "contextlib", "dataclasses", "datetime", "email", "enum",
    "functools", "http", "inspect", "json", "logging", "pathlib", "platformdirs", "random", "re",
    "shutil", "signal", "socket", "ssl", "subprocess", "tarfile", "tempfile", "threading",
    "typing", "urllib", "wherry_linux",
}  # fmt: skip

SCRIPT = """
import sys
before = set(sys.modules)
import wherry.backend
import wherry.cli.main as cli

class Probe:
    def execute(self, command):
        modules = sorted(set(sys.modules) - before)
        import json
        print(json.dumps({"argv": command.argv, "modules": modules}))
        return 0

wherry.backend.load_backend = lambda name=None: Probe()
sys.exit(cli.main(sys.argv[1:]))
"""


def reach_the_engine(*line: str) -> dict[str, list[str]]:
    """What a command says to its backend, and the modules that are loaded by then."""
    result = subprocess.run(
        # -I -S: no site-packages, whose .pth files import what they like.
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(CORE)!r})\n{SCRIPT}",
            *line,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    told: dict[str, list[str]] = json.loads(result.stdout)
    return told


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forward to a machine")
@pytest.mark.parametrize(
    "line",
    [
        "run --rm -i -v /a:/b -e A=b -p 8080:80 busybox true",
        "run -d --name web --restart always -m 64m --mount type=tmpfs,dst=/t nginx",
        "create busybox",
        "start web",
        "stop -t 1 web",
        "kill web",
        "rm -f web",
        "wait web",
        "exec -i web sh -c true",
        "ps -aq",
        "ps",
        "inspect web",
        "logs web",
    ],
)
def test_a_frequent_command_imports_nothing_heavy(line: str) -> None:
    told = reach_the_engine(*line.split())

    assert told["argv"][0] == line.split()[0]
    assert {name.partition(".")[0] for name in told["modules"]} & FORBIDDEN == set()


def test_only_the_asked_commands_module_is_imported() -> None:
    modules = reach_the_engine("pause", "web")["modules"]

    assert "wherry.cli.lifecycle" in modules
    assert not {"wherry.cli.run", "wherry.cli.options", "wherry.cli.ps"} & set(modules)
