"""A step's process ends as a step, whenever it is told to end."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from wherry.builder.executor import Executor, StepFailed
from wherry.builder.progress import Progress
from wherry.builder.stage import Step

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="images are built on Linux only")


def _told_at_once(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_step_that_is_told_to_end_before_it_has_begun_does_not_go_on_as_the_build() -> None:
    """It would say for the build that it has ended, and how."""
    engine: Any = SimpleNamespace(runtime=SimpleNamespace(end_with_parent=_told_at_once))
    own = os.getpid()
    reader, writer = os.pipe()

    def steps() -> Generator[Step, Any, None]:
        yield Step(name="a step", work=lambda: {"result": "done"})

    try:
        with pytest.raises(StepFailed, match="a step was killed"):
            Executor(engine, Progress(), 1).carry_out(steps())
    finally:
        if os.getpid() != own:
            os.write(writer, b"here I am")
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as went_on:
        assert went_on.read() == b""
