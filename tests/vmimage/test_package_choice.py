"""Which packages are chosen for those that were asked for."""

from __future__ import annotations

from textwrap import dedent

import pytest

from wherry.errors import Conflict, NotFound
from wherry_vmimage.packages import PackageIndex
from wherry_vmimage.resolver import resolve


def index_of(text: str, *more: tuple[str, bool]) -> PackageIndex:
    """An index of packages in short form: "name version; Field: value; …" a line."""
    index = PackageIndex("amd64")
    for content, automatic in ((text, True), *more):
        stanzas = []
        for line in dedent(content).strip().splitlines():
            head, *fields = line.split(";")
            name, version = head.split()
            stanzas.append(
                "\n".join(
                    [
                        f"Package: {name}",
                        f"Version: {version}",
                        *([] if "Architecture:" in line else ["Architecture: amd64"]),
                        *(field.strip() for field in fields),
                    ]
                )
            )
        index.add("\n\n".join(stanzas).encode() + b"\n\n", "file:///m", automatic=automatic)
    return index


def choose(index: PackageIndex, *include: str) -> list[str]:
    return [str(package) for package in resolve(index, [], include)]


def test_everything_needed_is_chosen_and_comes_before_what_needs_it() -> None:
    index = index_of(
        """
        app 1; Depends: lib (>= 1), tool
        lib 1; Pre-Depends: base
        tool 1
        base 1
        other 1
        """
    )

    chosen = choose(index, "app")

    assert sorted(chosen) == ["app 1", "base 1", "lib 1", "tool 1"]
    assert chosen.index("base 1") < chosen.index("lib 1") < chosen.index("app 1")


def test_latest_version_is_chosen_from_all_suites() -> None:
    index = index_of("app 1.9\napp 1.10", ("app 1.10+security", True))

    assert choose(index, "app") == ["app 1.10+security"]


def test_older_version_is_chosen_where_only_it_fits() -> None:
    index = index_of("app 1; Depends: lib (<< 2)\nlib 1\nlib 2")

    assert choose(index, "app") == ["lib 1", "app 1"]


def test_backports_are_used_only_where_nothing_else_is_there() -> None:
    index = index_of("app 1", ("app 2\nnew 2", False))

    assert choose(index, "app", "new") == ["app 1", "new 2"]


def test_requested_version_is_chosen() -> None:
    index = index_of("app 1\napp 2\nother 1; Depends: app")

    assert "app 1" in choose(index, "other", "app=1")


def test_first_alternative_that_can_be_had_is_chosen() -> None:
    index = index_of("app 1; Depends: missing | second | third\nsecond 1\nthird 1")

    assert choose(index, "app") == ["second 1", "app 1"]


def test_alternative_that_was_asked_for_is_enough() -> None:
    index = index_of("app 1; Depends: first | second\nfirst 1\nsecond 1")

    assert choose(index, "app", "second") == ["second 1", "app 1"]


def test_virtual_package_is_provided_by_the_one_of_best_priority() -> None:
    index = index_of(
        """
        app 1; Depends: mail
        aaa 1; Provides: mail; Priority: optional
        exim 1; Provides: mail; Priority: standard
        """
    )

    assert choose(index, "app") == ["exim 1", "app 1"]


def test_versioned_relation_needs_a_versioned_provider() -> None:
    index = index_of(
        """
        app 1; Depends: api (>= 2)
        old 1; Provides: api
        new 1; Provides: api (= 2)
        """
    )

    assert choose(index, "app") == ["new 1", "app 1"]


def test_alternative_that_conflicts_with_a_choice_is_passed_over() -> None:
    index = index_of(
        """
        app 1; Depends: first | second
        first 1; Conflicts: wanted
        second 1
        wanted 1
        """
    )

    assert sorted(choose(index, "app", "wanted")) == ["app 1", "second 1", "wanted 1"]


def test_earlier_choice_is_taken_back_where_it_leads_nowhere() -> None:
    index = index_of(
        """
        app 1; Depends: first | second
        first 1; Depends: deeper
        deeper 1; Depends: missing
        second 1
        """
    )

    assert choose(index, "app") == ["second 1", "app 1"]


def test_choice_of_another_package_is_taken_back_for_a_later_need() -> None:
    index = index_of(
        """
        app 1; Depends: a | b, c
        a 1; Breaks: c
        b 1
        c 1
        """
    )

    assert sorted(choose(index, "app")) == ["app 1", "b 1", "c 1"]


def test_package_does_not_conflict_with_itself() -> None:
    index = index_of("app 1; Provides: mail; Conflicts: mail")

    assert choose(index, "app") == ["app 1"]


def test_cycle_is_installed_whole() -> None:
    index = index_of("a 1; Depends: b\nb 1; Depends: a")

    assert sorted(choose(index, "a")) == ["a 1", "b 1"]


def test_package_for_another_architecture_is_not_chosen() -> None:
    index = index_of("app 2; Architecture: arm64\napp 1\ndata 1; Architecture: all")

    assert choose(index, "app", "data") == ["app 1", "data 1"]


def test_long_chain_of_needs_is_followed() -> None:
    links = [f"p{n} 1; Depends: p{n + 1}" for n in range(3000)]
    index = index_of("\n".join([*links, "p3000 1"]))

    chosen = choose(index, "p0")

    assert len(chosen) == 3001
    assert chosen[0] == "p3000 1"


def test_base_is_what_is_essential_and_of_the_priority() -> None:
    index = index_of(
        """
        core 1; Essential: yes; Priority: optional
        init 1; Priority: required
        cron 1; Priority: important
        less 1; Priority: standard
        game 1; Priority: optional
        """
    )

    def names(priority: str | None) -> list[str]:
        return [package.name for package in index.base(priority)]

    assert names(None) == ["core"]
    assert names("required") == ["core", "init"]
    assert names("standard") == ["core", "cron", "init", "less"]


def test_what_nobody_shall_get_is_not_chosen_and_not_missed() -> None:
    index = index_of(
        """
        app 1; Depends: lib, scripts, gone | tool
        lib 1; Depends: scripts (>= 2)
        scripts 1; Depends: interpreter
        interpreter 1
        tool 1
        """
    )

    packages = resolve(index, [], ["app"], without=["scripts", "gone"])

    assert [package.name for package in packages] == ["lib", "app"]


def test_missing_package_is_an_error_that_names_it() -> None:
    with pytest.raises(NotFound, match="no package nothing in the archive"):
        choose(index_of("app 1"), "nothing")


def test_unmet_dependency_is_an_error_that_names_who_has_it() -> None:
    index = index_of("app 1; Depends: lib (>= 2)\nlib 1")

    with pytest.raises(NotFound, match=r"app 1 needs lib \(>= 2\), which no package"):
        choose(index, "app")


def test_conflict_is_an_error_that_names_both() -> None:
    index = index_of("app 1; Depends: lib\nlib 1; Breaks: old (<< 2)\nold 1")

    with pytest.raises(Conflict, match=r"lib 1, which app 1 needs, cannot be installed .* old 1"):
        choose(index, "old", "app")
