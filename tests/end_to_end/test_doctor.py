"""`wherry doctor`: what works here for this user, and how to mend what does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.settings import as_rootless, as_single_uid

if TYPE_CHECKING:
    from support.cli import Cli
    from support.outside import Outside


def findings(wherry: Cli) -> dict[str, dict[str, str]]:
    """Each finding by its subject."""
    found = json.loads(wherry("doctor", "--format", "json", check=False).stdout)
    return {finding["Subject"]: finding for finding in found}


def test_what_the_other_tests_rely_on_is_found_to_work(wherry: Cli) -> None:
    found = findings(wherry)

    for subject in ("namespaces", "user namespaces", "overlayfs", "data directory", "seccomp"):
        assert found[subject]["Verdict"] == "ok", found[subject]


def test_whatever_is_limited_says_why(wherry: Cli) -> None:
    for finding in findings(wherry).values():
        assert finding["Text"]
        assert finding["Verdict"] in ("ok", "limited", "missing")
        assert bool(finding["Mend"]) == bool(finding["Who"])
        assert finding["Verdict"] == "ok" or finding["Mend"] or finding["Meanwhile"]


def test_it_leaves_nothing_in_the_data_directory(wherry: Cli, outside: Outside) -> None:
    wherry("doctor", check=False)

    assert "doctor" not in outside("ls", outside.data)


def test_text_says_who_can_type_the_line_that_mends(wherry: Cli) -> None:
    found = findings(wherry)

    said = wherry("doctor", check=False).stdout

    for finding in found.values():
        who = " (administrator)" if finding["Who"] == "administrator" else ""
        assert not finding["Mend"] or f"mend{who}: {finding['Mend']}\n" in said


@as_rootless
def test_a_user_with_a_range_of_ids_is_told_so(wherry: Cli) -> None:
    assert findings(wherry)["subordinate ids"]["Verdict"] == "ok"


@as_single_uid
def test_a_user_without_subordinate_ids_gets_the_line_that_grants_them(wherry: Cli) -> None:
    finding = findings(wherry)["subordinate ids"]

    assert finding["Verdict"] == "limited"
    assert finding["Mend"].startswith("sudo usermod --add-subuids ")
    assert finding["Mend"].endswith(f" {wherry.account.name}")
