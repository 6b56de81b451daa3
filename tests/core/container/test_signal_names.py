"""Signals by name: Linux's, on whatever system."""

from __future__ import annotations

import signal
import sys

import pytest

from wherry.container.signals import read_signal, signal_name
from wherry.errors import UsageError


@pytest.mark.skipif(sys.platform != "linux", reason="compares with this Linux")
def test_every_name_means_what_it_means_on_linux() -> None:
    for known in signal.Signals:
        assert read_signal(known.name) == known
        assert read_signal(known.name.removeprefix("SIG").lower()) == known
        assert read_signal(str(int(known))) == known


@pytest.mark.parametrize(
    ("text", "number"), [("RTMIN+3", 37), ("sigrtmax-2", 62), ("RTMIN", 34), ("64", 64)]
)
def test_real_time_signals_count_from_either_end(text: str, number: int) -> None:
    assert read_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "FOO", "SIG", "RTMIN-1", "RTMIN+31", "-9", "٣"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid signal: "):
        read_signal(text)


def test_a_number_has_a_name() -> None:
    assert (signal_name(15), signal_name(35)) == ("SIGTERM", "SIGRTMIN+1")
