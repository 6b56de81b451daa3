"""What ADD fetches: files of web servers, and git repositories."""

from __future__ import annotations

from wherry.builder import downloads, repositories
from wherry.builder.sources import DirectorySource, Part
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.builder.copy import Copy
    from wherry.image.build_cache import BuildCache


@value
class Fetched:
    """What has come, and what of it decides what becomes of the step."""

    part: Part
    content: str


def is_remote(text: str) -> bool:
    """Whether a source of ADD is fetched from somewhere."""
    return text.startswith(("http://", "https://")) or repositories.is_repository(text)


def known(cache: BuildCache, url: str, copy: Copy) -> str:
    """What `Fetched.content` would be, where that is known without fetching it; "" otherwise."""
    if repositories.is_repository(url):
        commit = repositories.commit_of(url)
        return _tree(url, commit, copy) if commit else ""
    digest = downloads.known(cache, url, copy.checksum)
    return _file(url, digest, copy) if digest else ""


def fetch(cache: BuildCache, url: str, copy: Copy, directory: str) -> Fetched:
    """Fetch it into an empty directory. Raises WherryError."""
    if repositories.is_repository(url):
        tree = repositories.clone(url, directory, keep_git=copy.keep_git)
        part = Part(source=DirectorySource(tree.directory), patterns=(".",))
        return Fetched(part=part, content=_tree(url, tree.commit, copy))
    found = downloads.fetch(cache, url, directory, copy.checksum)
    part = Part(
        source=DirectorySource(directory), patterns=(found.name,), unpacks=copy.unpack == "true"
    )
    return Fetched(part=part, content=_file(url, found.digest, copy))


def _tree(url: str, commit: str, copy: Copy) -> str:
    _, _, subdirectory = repositories.split_repository(url)
    return f"commit {commit} {subdirectory} {copy.keep_git}"


def _file(url: str, digest: str, copy: Copy) -> str:
    return f"file {downloads.name_of(url)} {digest} {copy.unpack}"
