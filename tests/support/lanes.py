"""`--lanes`: the tests that need a machine run beside all the others, in a pytest of their own.

They wait for a guest that is emulated on one processor, the others for programs of this host.
The second pytest is started with the words of the first, and writes its reports to a file. The
first one tells of them after its own tests, as if it had run them all. Before, it takes from the
end what the second has not come to: tests whose machine is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_END = ""
"""What comes after all reports, where all fixtures have cleared up."""

_REPORTS = "WHERRY_TEST_REPORTS"
"""In the environment of the second one: the file for its reports."""


def begin(config: pytest.Config) -> None:
    """Be the lane that this process is."""
    path = os.environ.pop(_REPORTS, "")
    config.pluginmanager.register(_Second(config, path) if path else _First(config))


def _divide(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests of the first and of the second lane; of these the last can be run by either."""
    lanes: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    for item in items:
        lanes[item.get_closest_marker("vm") is not None].append(item)
    lanes[1].sort(key=_is_alone)
    return lanes


def _is_alone(item: pytest.Item) -> bool:
    """Whether a test has a machine of its own, and so can run beside all others."""
    return "own_world" in getattr(item, "fixturenames", ())


def _claim(place: Path, item: pytest.Item) -> bool:
    """Whether a test that either lane can run is this one's."""
    name = sha256(item.nodeid.encode()).hexdigest()
    try:
        os.close(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class _Second:
    """Runs the tests of machines and reports to the first."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._first = os.getppid()
        self._place = Path(path).parent
        self._file = open(path, "ab")  # noqa: SIM115 - for as long as the process
        # The first one writes it, of all tests.
        config.option.xmlpath = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        others, items[:] = _divide(items)
        self._config.hook.pytest_deselected(items=others)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if os.getppid() != self._first:
            item.session.shouldstop = "nobody waits for the reports any more"
        has_been_taken = _is_alone(item) and not _claim(self._place, item)
        return True if has_been_taken else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook.pytest_report_to_serializable
        self._write(hook(config=self._config, report=report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        yield
        self._write(_END)

    def _write(self, record: Any) -> None:
        self._file.write(pickle.dumps(record))
        self._file.flush()


class _First:
    """Runs the other tests, and tells what has come of those of machines."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # Those that nothing has come of yet.
        self._theirs: set[str] = set()
        self._lane: _Lane | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        ours, theirs = _divide(items)
        if ours and theirs:
            alone = [item for item in theirs if _is_alone(item)]
            shared = theirs[: len(theirs) - len(alone)]
            items[:] = [*ours, *reversed(alone), *shared]
            self._theirs = {item.nodeid for item in theirs}
            for item in shared:
                # The process that runs it sees to its time.
                item.add_marker(pytest.mark.timeout(0), append=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self._theirs and not session.testsfailed and not self._config.option.collectonly:
            self._lane = _Lane(self._config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if self._lane is None or item.nodeid not in self._theirs:
            return None
        self._theirs.remove(item.nodeid)
        if _is_alone(item) and self._lane.claim(item):
            return None
        where = {"nodeid": item.nodeid, "location": item.location}
        item.ihook.pytest_runtest_logstart(**where)
        for report in self._lane.reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(**where)
        return True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._lane is not None and (said := self._lane.close(is_left=bool(self._theirs))):
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            print(f"the tests of machines did not end well:\n{said}", file=sys.stderr)


class _Lane:
    """The process of the second lane."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._place = tempfile.TemporaryDirectory(prefix="lane-")
        reports, self._said = (Path(self._place.name, name) for name in ("reports", "said"))
        reports.touch()
        self._reports = reports.open("rb")
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *map(str, config.invocation_params.args)],
                cwd=config.invocation_params.dir,
                env={**os.environ, _REPORTS: str(reports)},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                # Ctrl-C is for the first one, which passes it on.
                start_new_session=True,
            )  # fmt: skip
        self._found: dict[str, list[pytest.TestReport]] = {}

    def claim(self, item: pytest.Item) -> bool:
        return _claim(Path(self._place.name), item)

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Those of a test, once it has been run; a failure if the lane ended before."""
        reports: list[pytest.TestReport] = []
        while item.nodeid not in self._found:
            record = self._next()
            if record is None:
                return [self._failure(item)]
            if isinstance(record, str):
                self._found[record] = reports
                reports = []
            else:
                hook = self._config.hook.pytest_report_from_serializable
                reports.append(hook(config=self._config, data=record))
        return self._found.pop(item.nodeid)

    def _next(self) -> Any:
        """What was written next; None if there will be no more."""
        while True:
            has_ended = self._process.poll() is not None
            at = self._reports.tell()
            try:
                return pickle.load(self._reports)
            except (EOFError, pickle.UnpicklingError):  # not yet, or not all of it
                self._reports.seek(at)
            if has_ended:
                return None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)

    def _failure(self, item: pytest.Item) -> pytest.TestReport:
        told = f"the tests of machines ended before this one; they had said:\n{self._last_words()}"
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=told,
            when="call",
        )

    def _last_words(self) -> str:
        return self._said.read_text(errors="replace")[-4000:]

    def close(self, *, is_left: bool) -> str:
        """Let its fixtures clear up; what it has said where that went wrong.

        `is_left`: nobody waits for its tests any more.
        """
        if is_left and self._process.poll() is None:
            self._process.terminate() if sys.platform == "win32" else self._process.send_signal(2)
        self._process.wait()
        said = "" if is_left or self._next() == _END else self._last_words()
        self._reports.close()
        self._place.cleanup()
        return said
