"""A reference is read as docker reads it."""

from __future__ import annotations

import pytest

from wherry.errors import UsageError
from wherry.image.reference import parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("me/team/app:x", "docker.io/me/team/app:x", "me/team/app:x"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/app", "[2001:db8::1]/app:latest", "[2001:db8::1]/app:latest"),
        ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        ("host:80/a", "host:80/a:latest", "host:80/a:latest"),
        # Without a slash it is a name and a tag, whatever it looks like.
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("a-b.c_d__e--f", "docker.io/library/a-b.c_d__e--f:latest", "a-b.c_d__e--f:latest"),
        ("a----------b", "docker.io/library/a----------b:latest", "a----------b:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}", f"nginx:1@{DIGEST}"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
        ("a:_.-", "docker.io/library/a:_.-", "a:_.-"),
        ("a:UPPER", "docker.io/library/a:UPPER", "a:UPPER"),
    ],
)
def test_reference_is_normalized_and_made_familiar_again(
    text: str, canonical: str, familiar: str
) -> None:
    reference = parse_reference(text)

    assert (reference.canonical(), reference.familiar()) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "repository name must have at least one component"),
        ("Nginx", "repository name (library/Nginx) must be lowercase"),
        ("me/App:x", "repository name (me/App) must be lowercase"),
        ("quay.io/Me/app", "repository name (Me/app) must be lowercase"),
        ("a" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("a:", "'a:'"),
        ("a:-x", "'a:-x'"),
        ("a:" + "t" * 129, "a:ttt"),
        ("a:b:c", "'a:b:c'"),
        ("a b", "'a b'"),
        (" a", "' a'"),
        ("a/", "'a/'"),
        ("/a", "'/a'"),
        ("a//b", "'a//b'"),
        ("-a", "'-a'"),
        ("a-", "'a-'"),
        ("a..b", "'a..b'"),
        ("a___b", "'a___b'"),
        ("a._b", "'a._b'"),
        ("a.-b", "'a.-b'"),
        ("é", "'é'"),
        ("-host.io/a", "'-host.io/a'"),
        ("host:port/a", "'host:port/a'"),
        ("[::1/a", "'[::1/a'"),
        ("quay.io/" + "a" * 256, "must not be more than 255 characters"),
        ("a@", "unsupported digest algorithm"),
        ("a@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("a@sha256:abc", "invalid checksum digest length"),
        ("a@sha256:" + "G" * 64, "invalid checksum digest format"),
        ("a@sha256:" + "g" * 64, "invalid checksum digest format"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_reference(text)

    assert refused.value.message.startswith("invalid reference format")
    assert message in refused.value.message


def test_name_without_a_tag_can_stay_without() -> None:
    reference = parse_reference("nginx", default_tag=None)

    assert reference.canonical() == "docker.io/library/nginx"
