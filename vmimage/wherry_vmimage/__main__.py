"""`python -m wherry_vmimage build|wheel`: the VM's guest, for who makes a release of wherry."""

from __future__ import annotations

import argparse
import os
import sys

from wherry.errors import UsageError, WherryError
from wherry.image.progress import PlainProgress
from wherry_vmimage.archive import read_keys
from wherry_vmimage.guest.build import SUITE, GuestRequest, build_guest
from wherry_vmimage.guest.wheel import build_wheel


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except WherryError as error:
        print(f"wherry: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code or 1
    return 0


def _build(options: argparse.Namespace) -> None:
    request = GuestRequest(
        architecture=options.arch,
        suite=options.suite,
        mirror=options.mirror,
        security_mirror=options.security_mirror,
        keys=read_keys([options.keyring]) if options.keyring else b"",
        locked=options.locked,
        epoch=_epoch(),
    )
    with PlainProgress(sys.stderr) as progress:
        build_guest(request, options.directory, progress)


def _wheel(options: argparse.Namespace) -> None:
    print(build_wheel(options.directory, options.output))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wherry_vmimage", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    build = commands.add_parser("build", help="make a guest in a directory")
    build.set_defaults(run=_build)
    build.add_argument("directory", help="where it is made")
    build.add_argument("--arch", default="", help="architecture (default: this machine's)")
    build.add_argument("--suite", default=SUITE, help="Debian's release (default: %(default)s)")
    build.add_argument(
        "--mirror",
        default=os.environ.get("WHERRY_DEBIAN_MIRROR", ""),
        help="package mirror (default: WHERRY_DEBIAN_MIRROR, or what this host's apt uses)",
    )
    build.add_argument(
        "--security-mirror",
        default=os.environ.get("WHERRY_DEBIAN_SECURITY_MIRROR", ""),
        help="mirror of Debian's security updates",
    )
    build.add_argument("--keyring", default="", help="file with the keys that sign the archive")
    build.add_argument("--locked", default="", help="make what this packages.lock says")
    wheel = commands.add_parser("wheel", help="make a wheel of a guest")
    wheel.set_defaults(run=_wheel)
    wheel.add_argument("directory", help="where the guest is")
    wheel.add_argument("output", help="where the wheel is put")
    return parser


def _epoch() -> int | None:
    """SOURCE_DATE_EPOCH: the time that every file gets."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is not a number of seconds: {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
