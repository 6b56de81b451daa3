"""Nothing of an archive is believed that its signature does not reach."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.mirror import RELEASE_TIME
from support.requirements import need_tool
from wherry.errors import AccessDenied, CorruptState, NotFound, Unsupported, WherryError
from wherry.image.transport import Transport
from wherry_vmimage import signature
from wherry_vmimage.archive import fetch_release, load_indices, read_verified
from wherry_vmimage.download import Download, Downloader
from wherry_vmimage.packages import PackageIndex
from wherry_vmimage.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.mirror import Mirror, SigningKey
    from wherry_vmimage.archive import Release


@pytest.fixture
def downloader() -> Downloader:
    return Downloader(Transport())


@pytest.fixture
def fetch(mirror: Mirror, downloader: Downloader) -> Callable[..., Release]:
    """Fetch the mirror's release, verified with its key unless said otherwise."""

    def fetch(*, own_key: bool = True, check: bool = True, **fields: object) -> Release:
        source = Source(**{"uri": mirror.uri, "suite": "bookworm", **fields})  # type: ignore[arg-type]
        assert mirror.key
        keys = mirror.key.keyring.read_bytes() if own_key else b""
        return fetch_release(downloader, source, "debian", keys=keys, check_signature=check)

    return fetch


@pytest.mark.parametrize("compression", ["", ".gz", ".xz"])
def test_packages_of_a_signed_archive_are_found(
    mirror: Mirror, fetch: Callable[..., Release], downloader: Downloader, compression: str
) -> None:
    mirror.add("thing", "1.0")
    mirror.publish(compression=compression)
    index = PackageIndex("amd64")

    release = fetch()
    load_indices(downloader, release, index)

    assert (release.origin, release.version, release.date) == ("Debian", "12.0", RELEASE_TIME)
    assert str(index.candidate("thing")) == "thing 1.0"


def test_index_is_fetched_by_its_hash_where_offered(
    mirror: Mirror, fetch: Callable[..., Release], downloader: Downloader
) -> None:
    mirror.add("thing")
    mirror.publish(by_hash=True)
    index = PackageIndex("amd64")

    load_indices(downloader, fetch(), index)

    assert index.candidate("thing")


def test_armored_keyring_serves(mirror: Mirror, fetch: Callable[..., Release]) -> None:
    assert mirror.key
    armored = mirror.directory.parent / "key.asc"
    armored.write_bytes(mirror.key.armored)
    mirror.publish()

    assert fetch(own_key=False, signed_by=str(armored)).version == "12.0"


def test_key_in_the_source_itself_serves(mirror: Mirror, fetch: Callable[..., Release]) -> None:
    assert mirror.key
    lines = mirror.key.armored.decode().strip().splitlines()
    mirror.publish()

    release = fetch(own_key=False, signed_by="\n".join(line or "." for line in lines))

    assert release.version == "12.0"


def test_only_named_fingerprints_of_a_keyring_count(mirror: Mirror) -> None:
    assert mirror.key
    content = mirror.key.sign(b"Origin: Debian\n")
    keys = mirror.key.keyring.read_bytes()

    with pytest.raises(AccessDenied, match="none of the keys that may sign"):
        signature.verify_clearsigned(content, keys, fingerprints=["A" * 40])


@pytest.fixture(params=["gpgv", "sqv", "pysequoia"])
def _verifier(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each program that can check a signature, where this machine has it; none beside it."""
    if request.param == "pysequoia":
        pytest.importorskip("pysequoia")
    else:
        (tmp_path / request.param).symlink_to(need_tool(request.param))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("_verifier")
def test_text_that_was_signed_is_what_is_read(signing_key: SigningKey) -> None:
    text = b"Origin: Debian\n- dashed\n-----dashes\nlast line"

    verified = signature.verify_clearsigned(
        signing_key.sign(text), signing_key.keyring.read_bytes()
    )

    assert verified == text


@pytest.mark.usefixtures("_verifier")
def test_changed_text_is_refused(signing_key: SigningKey) -> None:
    content = signing_key.sign(b"Origin: Debian\n").replace(b"Debian", b"Nobody")

    with pytest.raises(AccessDenied):
        signature.verify_clearsigned(content, signing_key.keyring.read_bytes())


@pytest.mark.usefixtures("_verifier")
def test_signature_of_another_key_is_refused(
    signing_key: SigningKey, other_key: SigningKey
) -> None:
    content = other_key.sign(b"Origin: Debian\n")

    with pytest.raises(AccessDenied, match="no key in the keyring"):
        signature.verify_clearsigned(content, signing_key.keyring.read_bytes())


@pytest.mark.parametrize(
    "tamper",
    [
        lambda content: b"Origin: Debian\n" + content,
        lambda content: content + b"Origin: Debian\n",
        lambda content: content + content,
        lambda content: content.replace(b"\n\nOrigin", b"\nNotDash: x\n\nOrigin"),
        lambda content: content[:-40],
        lambda content: b"Origin: Debian\n",
    ],
)
def test_what_stands_beside_the_signed_text_is_refused(
    mirror: Mirror, fetch: Callable[..., Release], tamper: Callable[[bytes], bytes]
) -> None:
    mirror.publish(tamper=tamper)

    with pytest.raises(CorruptState, match=r"cannot trust .* not a clear-signed file"):
        fetch()


def test_unsigned_archive_is_refused(mirror: Mirror, fetch: Callable[..., Release]) -> None:
    mirror.publish()
    (mirror.directory / "dists/bookworm/InRelease").unlink()
    (mirror.directory / "dists/bookworm/Release").write_text("Origin: Debian\nSuite: bookworm\n")

    with pytest.raises(NotFound, match="it has no signed Release file"):
        fetch()
    assert fetch(check=False).origin == "Debian"
    assert fetch(trusted=True).origin == "Debian"


def test_signed_archive_can_be_used_unchecked(
    mirror: Mirror, fetch: Callable[..., Release]
) -> None:
    mirror.publish(tamper=lambda content: content.replace(b"12.0", b"13.0"))

    assert fetch(check=False).version == "13.0"


def test_without_a_program_that_verifies_the_archive_is_refused(
    mirror: Mirror, fetch: Callable[..., Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "pysequoia", None)

    with pytest.raises(Unsupported, match="nothing here can check") as error:
        fetch()

    assert "--no-check-signature" in (error.value.hint or "")


def test_keyring_that_is_missing_or_no_keyring_is_an_error(
    mirror: Mirror, fetch: Callable[..., Release], tmp_path: Path
) -> None:
    mirror.publish()
    (tmp_path / "text").write_text("no keys\n")

    with pytest.raises(NotFound, match="no such keyring"):
        fetch(own_key=False, signed_by=str(tmp_path / "nothing"))
    with pytest.raises(CorruptState, match="cannot use the keyring"):
        fetch(own_key=False, signed_by=str(tmp_path / "text"))


def test_another_suite_in_its_place_is_refused(
    mirror: Mirror, fetch: Callable[..., Release]
) -> None:
    mirror.publish(Codename="bullseye", Suite="old")

    with pytest.raises(CorruptState, match="Release is that of old or bullseye"):
        fetch()


def test_expired_archive_is_refused_unless_that_is_allowed(
    mirror: Mirror, fetch: Callable[..., Release]
) -> None:
    mirror.publish(Valid_Until="Sat, 20 Jan 2024 00:00:00 UTC")

    with pytest.raises(CorruptState, match="expired on Sat, 20 Jan 2024"):
        fetch()
    assert fetch(check_valid_until=False).version == "12.0"


def test_archive_from_the_future_is_refused(mirror: Mirror, fetch: Callable[..., Release]) -> None:
    tomorrow = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + 3 * 86400))
    mirror.publish(Date=tomorrow)

    with pytest.raises(CorruptState, match="later date than today"):
        fetch()


def test_index_that_is_not_the_signed_one_is_refused(
    mirror: Mirror, fetch: Callable[..., Release], downloader: Downloader
) -> None:
    mirror.add("thing")
    index = mirror.publish(compression="")
    index.write_bytes(index.read_bytes().replace(b"1.0", b"9.9"))

    with pytest.raises(CorruptState, match="digest mismatch"):
        load_indices(downloader, fetch(), PackageIndex("amd64"))


def test_architecture_or_component_that_is_not_there_is_an_error(
    mirror: Mirror, fetch: Callable[..., Release], downloader: Downloader
) -> None:
    mirror.publish()

    with pytest.raises(NotFound, match="no packages of main for arm64"):
        load_indices(downloader, fetch(), PackageIndex("arm64"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1], "bytes instead of"),
        (lambda content: content + b"x", "bytes instead of"),
        (lambda content: content[:-1] + b"\0", "digest mismatch"),
    ],
)
def test_file_that_is_not_what_the_index_says_is_refused(
    tmp_path: Path, downloader: Downloader, change: Callable[[bytes], bytes], reason: str
) -> None:
    content = b"a package" * 1000
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / "thing.deb"
    path.write_bytes(change(content))
    download = Download(digest, len(content), (f"file://{path}",))

    with pytest.raises(CorruptState, match=reason):
        downloader.fetch([download])

    path.write_bytes(content)
    downloader.fetch([download])
    assert read_verified(downloader, download) == content


def test_file_that_was_damaged_in_the_cache_is_fetched_again(
    tmp_path: Path, downloader: Downloader
) -> None:
    content = b"a package"
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / "thing.deb"
    path.write_bytes(content)
    download = Download(digest, len(content), (f"file://{path}",))
    downloader.fetch([download])
    with open(downloader.path(digest), "wb") as file:
        file.write(b"b package")

    with pytest.raises(CorruptState, match="was damaged since"):
        read_verified(downloader, download)
    downloader.fetch([download])

    assert read_verified(downloader, download) == content


def test_missing_file_is_an_error_that_names_it(tmp_path: Path, downloader: Downloader) -> None:
    download = Download("0" * 64, 1, (f"file://{tmp_path}/nothing.deb",))

    with pytest.raises(NotFound, match=r"nothing\.deb is not there"):
        downloader.fetch([download])


def test_release_without_sha256_is_refused(
    mirror: Mirror, fetch: Callable[..., Release], downloader: Downloader
) -> None:
    mirror.publish(SHA256="")
    release = fetch(check=False)
    release.fields.pop("SHA256")

    with pytest.raises(WherryError, match="holds no SHA-256"):
        load_indices(downloader, release, PackageIndex("amd64"))
