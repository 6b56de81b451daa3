"""A base image out of a mirror: what is in it, and what it is called."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.mirror import RELEASE_TIME, special
from wherry.errors import CorruptState, NotFound, UsageError, WherryError
from wherry.image.progress import Progress
from wherry.image.store import ImageStore
from wherry_vmimage.bootstrap import bootstrap
from wherry_vmimage.control import parse_paragraphs
from wherry_vmimage.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import IO

    from support.mirror import Mirror
    from wherry.image.store import Image
    from wherry.oci.image_spec import Descriptor


@pytest.fixture
def debian(mirror: Mirror) -> Mirror:
    """A mirror of the smallest Debian: a shell, a library, apt and its keyring."""
    mirror.add(
        "base-files",
        "12",
        [
            special("./", tarfile.DIRTYPE),
            special("./etc", tarfile.DIRTYPE),
            ("./etc/issue", b"Debian\n"),
            special("./tmp", tarfile.DIRTYPE, mode=0o1777),
        ],
        scripts={"conffiles": b"/etc/issue\n", "preinst": b"#!/bin/sh\n"},
        Essential="yes",
        Priority="required",
    )
    mirror.add(
        "dash",
        "0.5",
        [special("./bin", tarfile.DIRTYPE), ("./bin/dash", b"the shell")],
        Essential="yes",
        Pre_Depends="libc6 (>= 2)",
        compression=".zst",
    )
    mirror.add(
        "libc6",
        "2.36",
        [
            special("./lib64", tarfile.DIRTYPE),
            ("./lib64/ld.so", b"the loader"),
            ("./usr/share/doc/libc6/copyright", b"free"),
            ("./usr/share/doc/libc6/changelog.gz", b"long"),
        ],
        scripts={"triggers": b"interest-noawait /usr/lib\ninterest ldconfig # why\n"},
        Multi_Arch="same",
    )
    mirror.add("apt", "2.6", [("./usr/bin/apt-get", b"apt")], Depends="keyring")
    mirror.add("keyring", "1", [("./usr/share/keyrings/debian-archive-keyring.gpg", b"keys")])
    mirror.add("game", "1", [("./usr/games/game", b"fun")], Architecture="all")
    mirror.publish()
    return mirror


@pytest.fixture
def request_of(mirror: Mirror) -> Callable[..., Request]:
    """A request to the test's mirror, verified with its key and left unpacked."""

    def request_of(name: str = "debian:bookworm", **fields: object) -> Request:
        assert mirror.key
        request = Request(
            name=name,
            mirror=mirror.uri,
            keys=mirror.key.keyring.read_bytes(),
            architecture="amd64",
            configure=False,
        )
        return replace(request, **fields)  # type: ignore[arg-type]

    return request_of


def never_run(
    image: Descriptor, script: str, environment: Mapping[str, str]
) -> AbstractContextManager[IO[bytes]]:
    raise AssertionError("nothing is to be run")


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def make(request: Request, progress: Progress | None = None) -> Image:
    store = ImageStore()
    return store.find(bootstrap(request, store, never_run, progress or Progress()))


def content(image: Image) -> tarfile.TarFile:
    (layer,) = image.manifest["layers"]
    return tarfile.open(
        fileobj=io.BytesIO(gzip.decompress(ImageStore().read_blob(layer["digest"])))
    )


def text(image: Image, path: str) -> str:
    with content(image) as tar:
        file = tar.extractfile(path)
        assert file
        return file.read().decode()


def names(image: Image) -> list[str]:
    with content(image) as tar:
        return tar.getnames()


@pytest.mark.usefixtures("debian")
def test_image_says_what_it_is_and_where_it_comes_from(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    image = make(request_of())

    assert image.references == ("docker.io/library/debian:bookworm",)
    assert (image.config["os"], image.config["architecture"]) == ("linux", "amd64")
    assert image.config["created"] == "2023-11-14T22:13:20Z"
    assert image.config["config"]["Cmd"] == ["bash"]
    labels = image.config["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "12.0"
    assert labels["org.opencontainers.image.source"] == mirror.uri
    assert labels["org.opencontainers.image.revision"].startswith("bookworm Tue, 14 Nov 2023")


@pytest.mark.usefixtures("debian")
def test_packages_are_unpacked_below_a_merged_usr(request_of: Callable[..., Request]) -> None:
    with content(make(request_of())) as tar:
        members = {member.name: member for member in tar}

    assert members["bin"].linkname == "usr/bin"
    assert members["lib64"].linkname == "usr/lib64"
    assert members["usr/bin/dash"].mode == 0o755
    assert "usr/lib64/ld.so" in members
    assert members["tmp"].mode == 0o1777
    assert "usr/games/game" not in members
    assert all(member.mtime <= RELEASE_TIME for member in members.values())


@pytest.mark.usefixtures("debian")
def test_dpkg_regards_the_packages_as_unpacked(request_of: Callable[..., Request]) -> None:
    image = make(request_of())

    status = {p["Package"]: p for p in parse_paragraphs(text(image, "var/lib/dpkg/status"))}
    assert set(status) == {"apt", "base-files", "dash", "keyring", "libc6"}
    assert {p["Status"] for p in status.values()} == {"install ok unpacked"}
    digest = hashlib.md5(b"Debian\n", usedforsecurity=False).hexdigest()
    assert status["base-files"]["Conffiles"] == f"\n/etc/issue {digest}"
    assert status["libc6"]["Description"].endswith("\n  indented")
    info = "var/lib/dpkg/info"
    assert text(image, f"{info}/libc6:amd64.list").startswith("/lib64\n/lib64/ld.so\n")
    assert text(image, f"{info}/base-files.list").startswith("/.\n/etc\n")
    assert f"{info}/base-files.preinst" in names(image)
    assert text(image, "var/lib/dpkg/triggers/File") == "/usr/lib libc6:amd64/noawait\n"
    assert text(image, "var/lib/dpkg/triggers/ldconfig") == "libc6:amd64\n"


@pytest.mark.usefixtures("debian")
def test_apt_of_the_image_uses_the_same_mirror_and_key(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    image = make(request_of())

    (source,) = parse_paragraphs(text(image, "etc/apt/sources.list.d/debian.sources"))
    source.pop("Check-Valid-Until", None)  # as this host's apt has it
    keyring = source.pop("Signed-By")
    assert source == {
        "Types": "deb",
        "Suites": "bookworm",
        "URIs": mirror.uri,
        "Components": "main",
    }
    assert mirror.key
    with content(image) as tar:
        file = tar.extractfile(keyring.lstrip("/"))
        assert file
        assert file.read() == mirror.key.keyring.read_bytes()


@pytest.mark.usefixtures("debian")
def test_slim_image_keeps_nothing_of_the_documentation_but_licences(
    request_of: Callable[..., Request],
) -> None:
    image = make(request_of("debian:bookworm-slim"))

    found = [name for name in names(image) if name.startswith("usr/share/doc/libc6/")]
    assert found == ["usr/share/doc/libc6/copyright"]
    assert "path-exclude" in text(image, "etc/dpkg/dpkg.cfg.d/docker")
    assert image.references == ("docker.io/library/debian:bookworm-slim",)


@pytest.mark.usefixtures("debian")
def test_included_packages_and_names_are_added(request_of: Callable[..., Request]) -> None:
    image = make(request_of(include=("game",), tags=("mine", "example.test/mine:2")))

    assert "usr/games/game" in names(image)
    assert set(image.references) == {"docker.io/library/mine:latest", "example.test/mine:2"}


@pytest.mark.usefixtures("debian")
def test_same_packages_make_the_same_image(request_of: Callable[..., Request]) -> None:
    first = make(request_of())
    second = make(request_of(cache=False))

    assert first.descriptor == second.descriptor


def test_image_is_made_again_only_when_something_changed(
    debian: Mirror, request_of: Callable[..., Request]
) -> None:
    said = Lines()
    first = make(request_of())
    again = make(request_of(), said)
    debian.add("libc6", "2.37")
    debian.publish()
    newer = make(request_of())

    assert again.id == first.id
    assert "Up to date" in said.lines[-1]
    assert newer.id != first.id


def test_updates_are_used_where_the_mirror_has_them(
    debian: Mirror, request_of: Callable[..., Request]
) -> None:
    debian.add("dash", "0.6", [("./bin/dash", b"the newer shell")], Essential="yes")
    debian.publish("bookworm-updates")

    image = make(request_of())

    assert text(image, "usr/bin/dash") == "the newer shell"
    assert "Suites: bookworm bookworm-updates" in text(
        image, "etc/apt/sources.list.d/debian.sources"
    )


def test_archive_of_somebody_else_is_left_out(
    debian: Mirror, request_of: Callable[..., Request]
) -> None:
    debian.add("dash", "9.9", Essential="yes")
    debian.publish("bookworm-updates", Origin="Somebody")
    said = Lines()

    image = make(request_of(), said)

    assert "9.9" not in text(image, "var/lib/dpkg/status")
    assert any("bookworm-updates: left out, it is Somebody's" in line for line in said.lines)


def test_package_that_is_not_what_the_index_says_is_refused(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    deb = mirror.add("core", files=[("./file", b"x")], Essential="yes")
    mirror.publish()
    deb.write_bytes(deb.read_bytes()[:-1] + b"\0")

    with pytest.raises(CorruptState, match=r"core_1\.0\.deb is not what the archive's index says"):
        make(request_of(variant="essential"))
    assert ImageStore().images() == []


def test_missing_package_leaves_nothing_behind(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    deb = mirror.add("core", Essential="yes")
    mirror.publish()
    deb.unlink()

    with pytest.raises(NotFound, match=r"core_1\.0\.deb is not there"):
        make(request_of(variant="essential"))
    assert ImageStore().images() == []


def test_package_under_another_name_is_refused(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    mirror.add("core", Essential="yes")
    path = mirror.add("other")
    mirror._stanzas[0] = mirror._stanzas[1].replace(
        "Package: other", "Package: core\nEssential: yes"
    )
    assert path.exists()
    mirror.publish()

    with pytest.raises(CorruptState, match=r"the archive's core 1\.0 is other 1\.0"):
        make(request_of(variant="essential"))


@pytest.mark.parametrize("name", ["../etc/passwd", "./../outside"])
def test_package_that_leads_out_of_the_root_is_refused(
    mirror: Mirror, request_of: Callable[..., Request], name: str
) -> None:
    mirror.add("core", files=[(name, b"x")], Essential="yes")
    mirror.publish()

    with pytest.raises(CorruptState, match=r"cannot unpack core 1\.0: .* leads out of the root"):
        make(request_of(variant="essential"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("alpine", "do not know how to make 'alpine'"),
        ("debian:12", "which release of debian"),
        ("ubuntu", "which release of ubuntu"),
        ("debian@sha256:" + "0" * 64, "do not know how to make"),
    ],
)
def test_image_that_cannot_be_made_is_an_error(
    request_of: Callable[..., Request], name: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        make(request_of(name))


def test_suite_that_is_not_there_is_an_error(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    mirror.publish()

    with pytest.raises(NotFound, match="no suite nosuch at file://"):
        make(request_of("debian:nosuch"))


def test_foreign_architecture_is_unpacked(
    mirror: Mirror, request_of: Callable[..., Request]
) -> None:
    mirror.add("core", files=[("./file", b"x")], Essential="yes", Architecture="arm64")
    index = mirror.publish()
    foreign = mirror.directory / "dists/bookworm/main/binary-arm64" / index.name
    foreign.parent.mkdir()
    foreign.write_bytes(index.read_bytes())
    release = mirror.directory / "dists/bookworm/InRelease"
    assert mirror.key
    release.write_bytes(
        mirror.key.sign(
            release.read_bytes()
            .partition(b"\n\n")[2]
            .partition(b"\n-----BEGIN")[0]
            .replace(b"binary-amd64", b"binary-arm64")
        )
    )

    image = make(request_of(variant="essential", architecture="linux/arm64"))

    assert image.config["architecture"] == "arm64"
    assert "file" in names(image)


def test_busybox_image_has_every_applet(mirror: Mirror, request_of: Callable[..., Request]) -> None:
    program = b"\x7fELF code\0[\0[[\0cat\0env\0sh\0vi\0\0rest"
    mirror.add("busybox-static", "1:1.35", [("./bin/busybox", program)])
    mirror.publish()

    image = make(request_of("busybox", suites=("bookworm",), configure=True))

    assert image.references == ("docker.io/library/busybox:latest",)
    assert image.config["config"]["Cmd"] == ["sh"]
    with content(image) as tar:
        members = {member.name: member for member in tar}
        assert tar.extractfile("bin/sh").read() == program  # type: ignore[union-attr]
    for applet in ("[", "[[", "cat", "env", "sh", "vi"):
        assert members[f"bin/{applet}"].mode == 0o755
    assert members["usr/bin/env"].linkname == "../../bin/env"
    assert members["tmp"].mode == 0o1777
    assert "vi" in {name.rpartition("/")[2] for name in members}


def test_packages_are_configured_in_a_container_of_what_was_unpacked(
    debian: Mirror, request_of: Callable[..., Request]
) -> None:
    debian.add(
        "tool",
        scripts={"preinst": b"#!/bin/sh\n"},
        Pre_Depends="game",
        Depends="keyring",
    )
    debian.publish()
    ran: list[tuple[str, Mapping[str, str]]] = []

    def run_script(
        image: Descriptor, script: str, environment: Mapping[str, str]
    ) -> AbstractContextManager[IO[bytes]]:
        ran.append((script, environment))
        return _container_of(image)

    store = ImageStore()
    name = bootstrap(
        request_of(configure=True, architecture="", include=("tool",)),
        store,
        run_script,
        Progress(),
    )

    ((script, environment),) = ran
    steps = [line for line in script.splitlines() if line.startswith(("preinst ", "configure "))]
    assert steps == [
        "preinst base-files amd64 base-files",
        "configure game",
        "preinst tool amd64 tool",
        "configure -a",
    ]
    assert environment["SOURCE_DATE_EPOCH"] == str(RELEASE_TIME)
    found = names(store.find(name))
    assert "made-by-script" in found
    assert not {"dev/null", "etc/resolv.conf", ".dockerenv"} & set(found)


def _container_of(image: Descriptor) -> AbstractContextManager[IO[bytes]]:
    """What a container of `image` exports after a script that makes one file."""
    import json
    from contextlib import closing

    store = ImageStore()
    manifest = json.loads(store.read_blob(image["digest"]))
    (layer,) = manifest["layers"]
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(store.read_blob(layer["digest"]))) as before,
        tarfile.open(fileobj=output, mode="w") as after,
    ):
        for member in before:
            after.addfile(member, before.extractfile(member) if member.isreg() else None)
        for path in ("made-by-script", "dev/null", "etc/resolv.conf", ".dockerenv"):
            after.addfile(tarfile.TarInfo(path))
    output.seek(0)
    return closing(output)


def test_script_that_fails_leaves_no_image(
    debian: Mirror, request_of: Callable[..., Request]
) -> None:
    def run_script(
        image: Descriptor, script: str, environment: Mapping[str, str]
    ) -> AbstractContextManager[IO[bytes]]:
        raise WherryError("the script failed")

    store = ImageStore()
    with pytest.raises(WherryError, match="the script failed"):
        bootstrap(request_of(configure=True, architecture=""), store, run_script, Progress())

    assert store.images() == []
