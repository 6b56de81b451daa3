"""When a container is started again, by docker's rules."""

from __future__ import annotations

from itertools import pairwise

import pytest

from wherry_linux.restarts import Restarts


@pytest.mark.parametrize(
    ("policy", "code", "comes_again"),
    [
        (None, 1, False),
        ({"Name": ""}, 1, False),
        ({"Name": "no"}, 1, False),
        ({"Name": "on-failure"}, 0, False),
        ({"Name": "on-failure"}, 1, True),
        ({"Name": "always"}, 0, True),
        ({"Name": "unless-stopped"}, 0, True),
    ],
)
def test_policy_decides_by_exit_code(
    policy: dict[str, object] | None, code: int, comes_again: bool
) -> None:
    assert (Restarts().next(policy, code, 1.0) is not None) is comes_again


def test_delay_doubles_up_to_a_minute() -> None:
    restarts = Restarts()

    delays = [restarts.next({"Name": "always"}, 1, 0.0) for _ in range(12)]

    assert delays[0] == 0.1
    assert all(after == min(before * 2, 60.0) for before, after in pairwise(delays) if before)
    assert delays[-1] == 60.0


def test_delay_starts_again_after_ten_good_seconds() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.next({"Name": "always"}, 1, 0.0)

    assert restarts.next({"Name": "always"}, 1, 9.9) == 3.2
    assert restarts.next({"Name": "always"}, 1, 10.0) == 0.1


def test_failures_are_counted() -> None:
    restarts = Restarts()
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}

    delays = [restarts.next(policy, 1, 20.0) for _ in range(3)]

    assert delays == [0.1, 0.1, None]
    assert restarts.count == 2
