"""Addresses: with a login in them for the server, and without it for everybody else."""

from __future__ import annotations

from typing import NamedTuple


class Uri(NamedTuple):
    """The parts of an address that are asked for here."""

    scheme: str
    host: str  # with its port, without a login
    path: str
    login: str  # "user:password", or ""
    public: str  # the whole without the login


def parse_uri(text: str) -> Uri:
    from urllib.parse import unquote, urlsplit, urlunsplit

    parts = urlsplit(text)
    user, _, host = parts.netloc.rpartition("@")
    public = urlunsplit(parts._replace(netloc=host))
    return Uri(parts.scheme, host, unquote(parts.path), unquote(user), public)
