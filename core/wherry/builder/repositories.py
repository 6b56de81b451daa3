"""Git repositories as contexts and as sources of ADD, by the `git` that is installed."""

from __future__ import annotations

import os
import re

from wherry.errors import Unsupported, UsageError, WherryError
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Lines end as they do in the repository, whatever this system's custom is.
_SETTINGS = ("core.hooksPath=/dev/null", "init.defaultBranch=main", "core.autocrlf=false")
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@value
class Checkout:
    """A commit that was checked out, and the directory of it that is meant."""

    directory: str
    commit: str
    # When it was made, in seconds since the epoch.
    moment: int


def is_repository(text: str) -> bool:
    """Whether a URL is that of a git repository."""
    bare = text.partition("#")[0].partition("?")[0]
    return text.startswith(("git://", "git@", "ssh://")) or (
        text.startswith(("http://", "https://")) and bare.endswith(".git")
    )


def split_repository(url: str) -> tuple[str, str, str]:
    """The address, the ref and the directory that a repository's URL says."""
    from urllib.parse import parse_qs

    address, _, fragment = url.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    bare, mark, query = address.partition("?")
    if mark:
        asked = parse_qs(query)
        ref = next(
            (asked[key][-1] for key in ("ref", "tag", "branch", "commit") if key in asked), ref
        )
        subdirectory = asked.get("subdir", [subdirectory])[-1]
        address = bare
    if ref.startswith("-") or address.startswith("-"):
        raise UsageError(f"invalid repository {url!r}")
    return address, ref, subdirectory.strip("/")


def commit_of(url: str) -> str:
    """The commit that a repository's URL means now; "" where only fetching it can tell."""
    address, ref, _ = split_repository(url)
    if _COMMIT.fullmatch(ref):
        return ref
    ref = ref or "HEAD"
    try:
        listed = _git(url, ["ls-remote", "-q", "--", address, ref, f"{ref}^{{}}"])
    except WherryError:
        return ""
    found = {name: commit for commit, name in map(str.split, listed.splitlines())}
    # The order in which git looks for a name; what a tag stands for comes before itself.
    for name in (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if commit := found.get(f"{name}^{{}}") or found.get(name):
            return commit
    return ""


def clone(url: str, directory: str, *, keep_git: bool = False) -> Checkout:
    """Check a git repository out below an empty `directory`.

    `URL#REF:SUBDIRECTORY`, or `URL?ref=…&subdir=…`.
    """
    address, ref, subdirectory = split_repository(url)
    tree = f"{directory}/tree"

    def git(*words: str) -> str:
        return _git(url, words, directory)

    git("init", "-q", *([] if keep_git else [f"--separate-git-dir={directory}/git"]), tree)
    git("-C", tree, "remote", "add", "origin", "--", address)
    git("-C", tree, "fetch", "-q", "--depth=1", "--", "origin", ref or "HEAD")
    git("-C", tree, "checkout", "-q", "FETCH_HEAD")
    commit, moment = git("-C", tree, "log", "-1", "--format=%H %ct").split()
    git("-C", tree, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    if not keep_git:
        os.unlink(f"{tree}/.git")  # a file that tells where it is
    found = os.path.realpath(f"{tree}/{subdirectory}")
    top = os.path.join(os.path.realpath(tree), "")
    if not os.path.join(found, "").startswith(top) or not os.path.isdir(found):
        raise UsageError(f"failed to fetch remote {url}: no directory {subdirectory!r} in it")
    return Checkout(directory=found, commit=commit, moment=int(moment))


def _git(url: str, words: Sequence[str], directory: str | None = None) -> str:
    """What git prints. Raises WherryError that names the repository `url`."""
    import shutil
    import subprocess

    if shutil.which("git") is None:
        raise Unsupported(f"cannot fetch {url}: git is not installed")
    done = subprocess.run(
        ["git", *(word for setting in _SETTINGS for word in ("-c", setting)), *words],
        cwd=directory,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise WherryError(f"failed to fetch remote {url}: {reason[-1]}")
    return done.stdout
