"""Users by name, out of an image's files."""

from __future__ import annotations

import pytest

from wherry.container.users import lookup_user
from wherry.errors import NotFound, UsageError

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:\n"


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("web", (33, 34)),
        ("33", (33, 34)),
        ("web:staff", (33, 50)),
        ("web:7", (33, 7)),
        ("1000", (1000, 0)),
        ("1000:staff", (1000, 50)),
    ],
)
def test_user_is_found(user: str, ids: tuple[int, int]) -> None:
    assert lookup_user(user, PASSWD, GROUP) == ids


@pytest.mark.parametrize("user", ["no", "web:no", "-1", "\u0663", "1_0"])
def test_name_that_is_not_there_is_no_number(user: str) -> None:
    with pytest.raises(NotFound):
        lookup_user(user, PASSWD, GROUP)


@pytest.mark.parametrize("number", ["2147483648", "4294967295", "9" * 5000], ids=len)
def test_number_beyond_all_users_is_refused(number: str) -> None:
    for user in (number, f"web:{number}"):
        with pytest.raises(UsageError, match="must be in range 0-2147483647"):
            lookup_user(user, PASSWD, GROUP)


@pytest.mark.parametrize(
    "line",
    [
        "x:x:4294967295:0::/:/",
        "x:x:0:4294967295::/:/",
        f"x:x:{'9' * 5000}:0::/:/",
        "x:x:\u0663:0::/:/",
        "y:x:5:5:\fx:x:0:0::/:/",
        "y:x:5:5:\u2028x:x:0:0::/:/",
        "x:x:0",
    ],
    ids=["last id", "last group", "digits", "other digits", "form feed", "separator", "short"],
)
def test_line_of_passwd_that_is_none_is_passed_over(line: str) -> None:
    with pytest.raises(NotFound):
        lookup_user("x", f"{line}\n{PASSWD}", GROUP)
