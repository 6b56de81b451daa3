"""docker's build checks."""

from __future__ import annotations

from wherry.builder.checks import check, summary
from wherry.builder.instructions import read_dockerfile

TEXT = """\
FROM a AS one
MAINTAINER me
ENV name text
ARG DB_PASSWORD
ENV PUBLIC_KEY=x
CMD echo a
CMD ["echo", "b"]
RUN a \\

  b
from b AS one
"""


def rules(text: str) -> list[tuple[str, int]]:
    return [(one.rule, one.line) for one in check(read_dockerfile(text))]


def test_what_is_rarely_meant_is_found() -> None:
    assert sorted(rules(TEXT)) == [
        ("ConsistentInstructionCasing", 11),
        ("DuplicateStageName", 11),
        ("FromAsCasing", 11),
        ("JSONArgsRecommended", 6),
        ("LegacyKeyValueFormat", 3),
        ("MaintainerDeprecated", 2),
        ("MultipleInstructionsDisallowed", 6),
        ("NoEmptyContinuation", 9),
        ("SecretsUsedInArgOrEnv", 4),
    ]


def test_a_directive_leaves_checks_out() -> None:
    assert rules(f"# check=skip=all\n{TEXT}") == []
    left = rules(f"# check=skip=MaintainerDeprecated,DuplicateStageName\n{TEXT}")
    assert {"MaintainerDeprecated", "DuplicateStageName"}.isdisjoint(rule for rule, _ in left)


def test_what_was_found_is_told_with_its_lines() -> None:
    assert summary(check(read_dockerfile("FROM a\nCMD a\n"))) == (
        "1 warning found:\n - JSONArgsRecommended: JSON arguments recommended for CMD to prevent"
        " unintended behavior related to OS signals (line 2)"
    )


def test_stages_are_looked_at() -> None:
    text = (
        "FROM --platform=linux/amd64 a as One\nWORKDIR here\nEXPOSE 8080:80 53/UDP $P/TCP\n"
        "FROM --platform=$TARGETPLATFORM b AS two\nWORKDIR /a\nWORKDIR b\n"
        "FROM --platform=linux/arm64 c AS made-for-arm64\nWORKDIR $HERE\n"
    )

    assert sorted(rules(text)) == [
        ("ExposeInvalidFormat", 3),
        ("ExposeProtoCasing", 3),
        ("FromAsCasing", 1),
        ("FromPlatformFlagConstDisallowed", 1),
        ("RedundantTargetPlatform", 4),
        ("StageNameCasing", 1),
        ("WorkdirRelativePath", 2),
    ]
