"""The programs in docs/library.md do what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import on_linux

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [on_linux, pytest.mark.usefixtures("busybox_image")]

MANUAL = Path(__file__).parents[2] / "docs" / "library.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", MANUAL.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_the_example_runs(wherry: Cli, program: str) -> None:
    if "def test_" in program:
        program += "\nif __name__ == '__main__':\n"
        program += "    raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', __file__]))\n"
    path = Path(wherry.directory, "example.py")
    path.write_text(program)
    path.chmod(0o644)

    process = wherry.spawn(
        [wherry.account.interpreter, "-W", "error::DeprecationWarning", str(path)],
        stdin=subprocess.DEVNULL,
    )
    output, errors = process.communicate(timeout=120)

    assert process.returncode == 0, (output + errors).decode()
    assert wherry("ps", "--all", "--quiet").stdout == ""
