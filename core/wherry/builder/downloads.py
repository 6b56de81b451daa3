"""ADD of a URL: what a web server has, and whether it is still what it had before.

A note in the build cache says what that was, and which validators (RFC 9110, 8.8) came with
it. Where the server says that nothing has changed, nothing is fetched to know the step again.
"""

from __future__ import annotations

import os
import posixpath

from wherry.errors import UsageError, WherryError, reason_of
from wherry.image.build_cache import key_of
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from email.message import Message
    from typing import Any

    from wherry.image.build_cache import BuildCache

_ALGORITHMS = ("sha256", "sha384", "sha512")
_PATIENCE = 60
# A file may change twice within the second that its time is counted in. One that is older
# than this when it comes is not that young.
_OLD_ENOUGH = 60


@value
class Download:
    """A file that has come."""

    name: str
    # "ALGORITHM:DIGEST", and the headers that it came with.
    digest: str
    headers: Message


def known(cache: BuildCache, url: str, checksum: str) -> str:
    """The digest of what a URL has, where it is known without fetching that; "" otherwise."""
    if checksum:
        return checksum
    note = (cache.find(_key(url)) or {}).get("Note") or {}
    return str(note["Digest"]) if note and _is_unchanged(url, note) else ""


def fetch(cache: BuildCache, url: str, directory: str, checksum: str) -> Download:
    """Fetch a file into a directory, and note what it was. Raises WherryError."""
    found = download(url, directory, checksum)
    if not checksum:
        cache.note(_key(url), f"what {url} was", {**_validators(found), "Digest": found.digest})
    return found


def download(url: str, directory: str, checksum: str = "") -> Download:
    """Fetch a file into a directory. Raises WherryError."""
    from http.client import HTTPException
    from urllib.error import HTTPError

    try:
        found = _fetch(url, directory, checksum)
    except HTTPError as error:
        raise WherryError(f"cannot fetch {url}: invalid response status {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise WherryError(f"cannot fetch {url}: {reason_of(error)}") from error
    if checksum and found.digest != checksum:
        raise WherryError(f"digest mismatch {found.digest}: {checksum}")
    path = f"{directory}/{found.name}"
    os.chmod(path, 0o600)
    moment = _moment(found.headers["Last-Modified"])
    os.utime(path, (moment, moment))
    return found


def name_of(url: str) -> str:
    """What the file of a URL is called."""
    from urllib.parse import unquote, urlsplit

    name = posixpath.basename(unquote(urlsplit(url).path)) or "index"
    return "index" if name in (".", "..") or "\0" in name else name


def _key(url: str) -> str:
    return key_of(["URL", url], ())


def _open(url: str, method: str, headers: dict[str, str]) -> Any:
    from urllib.request import Request, urlopen

    request = Request(url, method=method, headers={"User-Agent": "wherry", **headers})
    return urlopen(request, timeout=_PATIENCE)


def _fetch(url: str, directory: str, checksum: str) -> Download:
    from hashlib import new

    algorithm, colon, _ = checksum.partition(":")
    if checksum and (not colon or algorithm not in _ALGORITHMS):
        raise UsageError(f"invalid checksum {checksum!r}: it is ALGORITHM:DIGEST")
    algorithm = algorithm or "sha256"
    # Windows knows another mark between names.
    digest, name = new(algorithm), os.path.basename(name_of(url))
    with _open(url, "GET", {}) as response, open(f"{directory}/{name}", "wb") as file:
        while data := response.read(1 << 20):
            digest.update(data)
            file.write(data)
        if response.length:
            raise WherryError(f"cannot fetch {url}: it ends {response.length} bytes early")
        return Download(
            name=name, digest=f"{algorithm}:{digest.hexdigest()}", headers=response.headers
        )


def _validators(found: Download) -> dict[str, str]:
    """What tells of a file whether it is the same, of what came with it."""
    headers = found.headers
    if tag := headers["ETag"]:
        return {"ETag": tag}
    modified = headers["Last-Modified"] or ""
    if modified and _moment(headers["Date"]) - _moment(modified) >= _OLD_ENOUGH:
        return {"Last-Modified": modified, "Content-Length": headers["Content-Length"] or ""}
    return {}


def _is_unchanged(url: str, note: dict[str, str]) -> bool:
    """Whether a server says that it has what the note tells of.

    Not all that send an ETag understand it when it comes back, so it is compared here, too.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    expected = {name: note[name] for name in note if name != "Digest"}
    asked = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
    if not expected:
        return False
    question = {asked[name]: text for name, text in expected.items() if name in asked}
    try:
        with _open(url, "HEAD", question) as response:
            headers = response.headers
            return all(_bare(headers[name]) == _bare(text) for name, text in expected.items())
    except HTTPError as error:
        with error:
            return error.code == 304
    except (OSError, HTTPException, ValueError):
        return False  # to fetch it will tell why


def _bare(tag: str | None) -> str:
    # What compresses on the way makes a weak one of a strong one.
    return (tag or "").removeprefix("W/")


def _moment(text: str | None) -> float:
    """A time as HTTP has it, in seconds; the epoch where there is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
