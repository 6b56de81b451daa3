"""`wherry bootstrap`: a base image from a package mirror, where no registry is to be had."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.engine import Engine


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    """Lists that were given with commas, given repeatedly, or both."""
    return tuple(word for value in values for word in value.replace(",", " ").split())


@command(
    option(
        "-t",
        "--tag",
        multiple=True,
        metavar="name",
        help="Name and optionally a tag of the image (default: as it is called here)",
    ),
    option(
        "--mirror",
        env="WHERRY_DEBIAN_MIRROR",
        metavar="url",
        help="Package mirror (default: what this host's apt uses)",
    ),
    option(
        "--security-mirror",
        env="WHERRY_DEBIAN_SECURITY_MIRROR",
        metavar="url",
        help="Mirror of Debian's security updates",
    ),
    option(
        "--suite",
        multiple=True,
        metavar="list",
        help="Suites of the mirror, the release first (default: by the image's tag)",
    ),
    option(
        "--components",
        multiple=True,
        metavar="list",
        help="Components of the archive (default: main, or what this host's apt uses)",
    ),
    option(
        "--include", multiple=True, metavar="list", help="More packages, each NAME or NAME=VERSION"
    ),
    option(
        "--variant",
        default="minbase",
        metavar="string",
        choices=("essential", "apt", "minbase", "important", "standard"),
        help="Which packages make the base",
    ),
    option(
        "--arch",
        aliases=("--platform",),
        metavar="string",
        help="Architecture (default: this machine's)",
    ),
    option("--keyring", metavar="file", help="Keys that sign the archive"),
    option("--keyring-content", metavar="base64", hidden=True),
    option("--no-check-signature", type=bool, help="Use an archive that nothing here can verify"),
    option("--no-check-valid-until", type=bool, help="Use an archive that is out of date"),
    option("--no-configure", type=bool, help="Leave the packages unpacked"),
    option("--no-cache", type=bool, help="Make it again even if nothing changed"),
    option("-q", "--quiet", type=bool, help="Say nothing but the image's name"),
    argument("image"),
    examples="""\
  $ wherry bootstrap debian:bookworm
  $ wherry bootstrap debian:trixie-slim --include python3,ca-certificates
  $ wherry bootstrap busybox
""",
)
def bootstrap(image: str, keyring: str, **options: Any) -> int:
    """Make a base image from a Debian or Ubuntu package mirror

    IMAGE is debian:RELEASE, ubuntu:RELEASE (either with -slim for one without
    documentation), or busybox. Needs no registry, no root and no tool of the
    distribution: the archive's signature and every package's digest are verified, the
    packages unpacked here and configured in a container without a network.
    """
    if keyring:
        options["keyring_content"] = _read_keyring(keyring)
    argv = bootstrap.argv(image=image, **options)
    return execute(Command(argv=argv, action=lambda engine: _bootstrap(engine, image, **options)))


def _read_keyring(path: str) -> str:
    """The keys in a file of this host, which the containers' host need not have."""
    from base64 import b64encode

    from wherry_vmimage.archive import read_keys

    return b64encode(read_keys([path])).decode()


def _bootstrap(
    engine: Engine,
    image: str,
    *,
    tag: tuple[str, ...],
    suite: tuple[str, ...],
    components: tuple[str, ...],
    include: tuple[str, ...],
    arch: str,
    keyring_content: str,
    no_check_signature: bool,
    no_check_valid_until: bool,
    no_configure: bool,
    no_cache: bool,
    quiet: bool,
    **same: Any,
) -> int:
    from base64 import b64decode

    from wherry.image.progress import open_progress
    from wherry_vmimage.request import Request
    from wherry_vmimage.stage import make_base_image

    request = Request(
        name=image,
        tags=tag,
        suites=_words(suite),
        components=_words(components),
        include=_words(include),
        architecture=arch,
        keys=b64decode(keyring_content),
        check_signature=not no_check_signature,
        check_valid_until=not no_check_valid_until,
        configure=not no_configure,
        cache=not no_cache,
        **same,
    )
    with open_progress(quiet=quiet) as progress:
        name = make_base_image(request, engine, progress)
    print(name)
    return 0
