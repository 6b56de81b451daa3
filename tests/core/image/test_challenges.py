"""What a registry asks for is read from WWW-Authenticate."""

from __future__ import annotations

import pytest

from wherry.image.auth import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="basic-realm"', [("basic", {"realm": "basic-realm"})]),
        (
            (
                'Bearer realm="https://auth.example/token",service="registry",'
                'scope="repository:a/b:pull,push"'
            ),
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'BEARER Realm = "x" , Service=plain, error="invalid_token"',
            [("bearer", {"realm": "x", "service": "plain", "error": "invalid_token"})],
        ),
        (
            'Basic realm="a, \\"b\\"", Bearer realm="c",service="d"',
            [("basic", {"realm": 'a, "b"'}), ("bearer", {"realm": "c", "service": "d"})],
        ),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="never closed', [("bearer", {"realm": "never closed"})]),
        ("=,=", []),
    ],
)
def test_challenges_are_read(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [
        Challenge(scheme=scheme, parameters=parameters) for scheme, parameters in challenges
    ]
