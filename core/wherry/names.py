"""Ids and names of containers."""

from __future__ import annotations

import os

from wherry.errors import UsageError

_ADJECTIVES = (
    "able agile amber ample aqua bold breezy bright brisk calm candid clever cosy crisp curious"
    " daring deft early earnest fair fast fine fleet fond frank free fresh gentle glad golden"
    " grand hardy hearty honest humble jolly keen kind lively loyal lucid mellow merry mighty"
    " modest neat nimble noble patient placid plucky polite prompt proud quick quiet ready rosy"
    " sharp shy silver sincere sleek snug solid spry steady still stout sunny swift tidy trim"
    " trusty upbeat vivid warm wise witty young zesty"
).split()
_BOATS = (
    "barge bark brig canoe caravel catboat clipper coble cog coracle corvette cutter dhow"
    " dinghy dory drifter ferry galleon galley gig gondola gulet hoy hulk junk kayak keelboat"
    " ketch knarr launch lighter longship lugger packet pinnace pram proa punt raft sampan"
    " schooner scow scull shallop skiff sloop smack snow tartane tender trawler trimaran tug"
    " umiak whaler wherry xebec yacht yawl"
).split()

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def new_id() -> str:
    """A container's id: 64 hexadecimal digits, never all decimal in its short form."""
    while True:
        container_id = os.urandom(32).hex()
        # A short id that reads as a number would be taken for one in `--user` and templates.
        if not container_id[:12].isdigit():
            return container_id


def random_name(attempt: int = 0) -> str:
    """A name such as `brisk_ketch`; with a number once the plain ones are taken."""
    number = int.from_bytes(os.urandom(4), "little")
    name = f"{_ADJECTIVES[number % len(_ADJECTIVES)]}_{_BOATS[(number >> 12) % len(_BOATS)]}"
    return f"{name}{number % 1000}" if attempt >= 3 else name


def check_name(name: str) -> str:
    """`name` without docker's optional leading slash. Raises UsageError."""
    bare = name.removeprefix("/")
    if len(bare) < 2 or not _ALLOWED.issuperset(bare) or not bare[0].isalnum():
        raise UsageError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return bare
