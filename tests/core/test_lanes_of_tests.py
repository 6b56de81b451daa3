"""`pytest --lanes`: two processes run the tests, and one tells of all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.lanes import begin

def pytest_configure(config):
    config.addinivalue_line("markers", "vm: in a machine")
    begin(config)
"""

# Each waits for the other, which it can only where both run.
MEETING = """
import os, pathlib, time
import pytest

def meet(mine, other):
    pathlib.Path(mine).write_text(str(os.getpid()))
    end = time.monotonic() + 100
    while not pathlib.Path(other).exists():
        assert time.monotonic() < end
        time.sleep(0.01)

@pytest.mark.vm
def test_in_a_machine():
    meet("one", "two")

def test_on_this_host():
    meet("two", "one")
"""

OUTCOMES = """
import os
import pytest

@pytest.fixture
def left():
    yield
    raise ValueError("something is left")

def test_here(): pass

@pytest.mark.vm
def test_good(): pass

@pytest.mark.vm
def test_skipped(): pytest.skip("there is no such thing")

@pytest.mark.vm
def test_bad(): assert 1 + 1 == 3

@pytest.mark.vm
def test_untidy(left): pass
"""

ENDING = """
@pytest.mark.vm
def test_that_ends_its_process(): os._exit(3)

@pytest.mark.vm
def test_after_it(): pass
"""


# The long test ends only when somebody else has run the other one.
TAKING = """
import os, pathlib, time
import pytest

@pytest.fixture(scope="session")
def machine():
    yield
    assert os.environ.get("MACHINE_ENDS_WELL")

@pytest.fixture
def own_world(): pass

@pytest.mark.vm
def test_alone(own_world): pathlib.Path("ran").touch()

@pytest.mark.vm
def test_long(machine):
    end = time.monotonic() + 100
    while not pathlib.Path("ran").exists():
        assert time.monotonic() < end
        time.sleep(0.01)

def test_here(): pass
"""


def run(directory: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_some.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=directory, capture_output=True, text=True, check=False, timeout=120,
        # It would be told of every failure twice.
        env={name: value for name, value in os.environ.items() if name != "CI"},
    )  # fmt: skip


def summary(result: subprocess.CompletedProcess[str]) -> str:
    """The last line, without how long it took."""
    return re.sub(r" in [\d.]+s", "", result.stdout.splitlines()[-1]).strip("= ")


def test_tests_of_machines_run_beside_the_others(tmp_path: Path) -> None:
    result = run(tmp_path, MEETING)

    assert (result.returncode, summary(result)) == (0, "2 passed"), result.stdout
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_what_came_of_them_is_told_as_of_any_other(tmp_path: Path) -> None:
    result = run(tmp_path, OUTCOMES, "-rs")

    assert result.returncode == 1
    assert summary(result) == "1 failed, 3 passed, 1 skipped, 1 error", result.stdout
    assert ">   def test_bad(): assert 1 + 1 == 3" in result.stdout
    assert "ValueError: something is left" in result.stdout
    assert ": there is no such thing" in result.stdout


def test_none_is_lost_with_the_process_that_should_have_run_it(tmp_path: Path) -> None:
    result = run(tmp_path, OUTCOMES + ENDING)

    assert result.returncode == pytest.ExitCode.INTERNAL_ERROR
    assert summary(result) == "3 failed, 3 passed, 1 skipped, 1 error", result.stdout
    assert result.stdout.count("the tests of machines ended before this one") == 2


def test_who_is_done_first_takes_tests_that_have_a_machine_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINE_ENDS_WELL", "1")

    result = run(tmp_path, TAKING)

    assert (result.returncode, summary(result)) == (0, "3 passed"), result.stdout


def test_what_goes_wrong_after_the_last_test_is_told(tmp_path: Path) -> None:
    result = run(tmp_path, TAKING)

    assert result.returncode == pytest.ExitCode.INTERNAL_ERROR
    assert 'assert os.environ.get("MACHINE_ENDS_WELL")' in result.stderr


@pytest.mark.parametrize(("word", "told"), [("good", "1 passed"), ("here", "1 passed")])
def test_one_process_is_enough_for_tests_of_one_kind(tmp_path: Path, word: str, told: str) -> None:
    result = run(tmp_path, OUTCOMES, "-k", word)

    assert (result.returncode, summary(result)) == (0, f"{told}, 4 deselected"), result.stdout
