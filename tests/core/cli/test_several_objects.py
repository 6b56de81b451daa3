"""Commands that take several objects: each is done, each failure is told, one exit code."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("forks", allow_module_level=True)

from support.waiting import children
from wherry.cli.each import for_each
from wherry.errors import Conflict, NotFound

if TYPE_CHECKING:
    from pathlib import Path


def act(name: str) -> None:
    if name.startswith("no"):
        raise NotFound(f"No such container: {name}", hint="look again")
    if name == "broken":
        raise RuntimeError("a mistake")


@pytest.mark.parametrize("together", [False, True])
def test_the_first_failure_does_not_stop_the_rest(
    together: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    code = for_each(["a", "nope", "b"], act, together=together)

    out, err = capfd.readouterr()
    assert code == 1
    assert out == "a\nb\n"
    assert err == "wherry: No such container: nope\nlook again\n"


@pytest.mark.parametrize("together", [False, True])
def test_a_failure_may_be_told_and_not_count(
    together: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert for_each(["a", "nope"], act, together=together, tolerate=NotFound) == 0

    out, err = capfd.readouterr()
    assert out == "a\n"
    assert "No such container: nope" in err


def test_success_of_all_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert for_each(["a", "b"], act) == 0
    assert for_each([], act) == 0
    assert capsys.readouterr().out == "a\nb\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_what_waits_is_done_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["a", "b", "c"]

    def meet(name: str) -> None:
        """Wait until all the others are here too: one after the other it could not end."""
        (tmp_path / name).touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < len(names):
            if time.monotonic() > deadline:
                raise Conflict(f"{name} waited alone")
            os.sched_yield()

    assert for_each(names, meet, together=True) == 0
    assert capfd.readouterr().out == "a\nb\nc\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
def test_a_mistake_in_a_helper_is_told_and_no_process_goes_astray(
    capfd: pytest.CaptureFixture[str],
) -> None:
    parent, before = os.getpid(), children()

    code = for_each(["broken", "a"], act, together=True)

    assert os.getpid() == parent
    assert code == 1
    assert "RuntimeError: a mistake" in capfd.readouterr().err
    assert children() <= before
