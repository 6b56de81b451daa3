"""Commands about images: images, pull, push, tag, rmi, and `wherry image`."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command, option
from wherry.container.request import pull_options
from wherry.errors import NotFound, UsageError, WherryError
from wherry.words import read_duration, write_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.request import PullOptions
    from wherry.engine import Engine
    from wherry.image.reference import Reference

_FILTERS = ("before", "dangling", "id", "label", "label!", "reference", "since", "until")
_PRUNE_FILTERS = ("dangling", "label", "label!", "until")

_PLATFORM = option(
    "--platform", env="DOCKER_DEFAULT_PLATFORM", help="Platform of the image (os/arch[/variant])"
)
_TRUST = option("--disable-content-trust", type=bool, default=True, hidden=True)
_QUIET = option("-q", "--quiet", type=bool, help="Suppress verbose output")
_REGISTRY = (
    option("--authfile", env="REGISTRY_AUTH_FILE", help="Read registry credentials from this file"),
    option("--creds", metavar="user:password", help="Credentials for the registry"),
    option("--tls-verify", type=bool, default=True,
           help="Require HTTPS and a valid certificate of the registry"),
    option("--retry", type=int, default=None, help="How often to ask again after a failure"),
    option("--retry-delay", type=int, convert=read_duration, write=write_duration,
           metavar="duration", help="Time between tries (ms|s|m|h)"),
)  # fmt: skip


def _options(values: Mapping[str, Any]) -> PullOptions:
    return pull_options(values, platform=values["platform"], quiet=values["quiet"])


# ---- images ----


@command(
    option("-a", "--all", type=bool, help="Show all images (default hides intermediate images)"),
    option("--digests", type=bool, help="Show digests"),
    common.FILTER,
    common.FORMAT,
    common.NO_TRUNC,
    option("-q", "--quiet", type=bool, help="Only show image IDs"),
    argument("repository", required=False, metavar="REPOSITORY[:TAG]"),
    examples="""\
  $ wherry images debian                               the images of one repository
  $ wherry images --filter dangling=true -q            ids of those without a name
""",
)  # fmt: skip
def images(
    all: bool,  # noqa: A002 - docker's word; images of ours have no intermediate ones
    digests: bool,
    filter: tuple[str, ...],  # noqa: A002
    format: str,  # noqa: A002
    no_trunc: bool,
    quiet: bool,
    repository: str,
) -> int:
    """List images"""
    from wherry.config_file import ConfigFile
    from wherry.filters import parse_filters

    filters = parse_filters(filter, _FILTERS)
    if repository:
        filters["reference"] = (*filters.get("reference", ()), repository)
    template = format or ("" if quiet else ConfigFile().text("imagesFormat"))

    def action(engine: Engine) -> int:
        from wherry.cli.tables import Table, print_rows

        columns = ("Repository", "Tag", "ID", "CreatedSince", "Size")
        table = Table(
            columns=(*columns[:2], "Digest", *columns[2:]) if digests else columns,
            titles={"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT"},
            raw=(
                "repository: {{.Repository}}\\ntag: {{.Tag}}\\nimage_id: {{.ID}}\\n"
                "created_at: {{.CreatedAt}}\\nvirtual_size: {{.Size}}\\n"
            ),
        )
        rows = [
            row
            for summary in engine.images.list(filters)
            for row in rows_of(summary, repository, full=no_trunc)
        ]
        if quiet:
            rows = list({row["ID"]: row for row in rows}.values())
        print_rows(rows, table, template=template, quiet=quiet)
        return 0

    argv = images.argv(
        all=all, digests=digests, filter=filter, format=template, no_trunc=no_trunc, quiet=quiet,
        repository=repository,
    )  # fmt: skip
    return execute(Command(argv=argv, action=action, brief=True))


def rows_of(
    summary: Mapping[str, Any], wanted: str = "", *, full: bool = False
) -> list[dict[str, Any]]:
    """A row for each name of an image that `wanted` lets through, or one without a name."""
    from wherry.cli.tables import short_id
    from wherry.engine.images import matches_pattern
    from wherry.human import SECOND, human_size
    from wherry.times import ago, format_local_time

    digests = dict(each.split("@") for each in summary["RepoDigests"])
    names = [
        name for name in summary["RepoTags"] if not wanted or matches_pattern(name, wanted)
    ] or ["<none>:<none>"]
    created = summary["Created"] * SECOND
    size = human_size(summary["Size"], 3)
    rows = []
    for name in names:
        repository, _, tag = name.rpartition(":")
        rows.append(
            {
                "ID": short_id(summary["Id"], full=full),
                "Repository": repository,
                "Tag": tag,
                "Digest": digests.get(repository, "<none>"),
                "CreatedSince": ago(created),
                "CreatedAt": format_local_time(created),
                "Size": size,
                "VirtualSize": size,
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
                "Containers": "N/A",
            }
        )
    return rows


# ---- pull and push ----


def _repository(text: str, *, all_tags: bool) -> Reference:
    """What is pulled or pushed; with --all-tags a repository without a tag."""
    from wherry.image.reference import parse_reference

    reference = parse_reference(text, default_tag=None)
    if all_tags and (reference.tag or reference.digest):
        raise UsageError("tag can't be used with --all-tags/-a")
    if not reference.tag and not reference.digest:
        return reference.with_tag("latest")
    return reference


@command(
    option("-a", "--all-tags", type=bool, help="Download all tagged images in the repository"),
    _TRUST,
    _PLATFORM,
    _QUIET,
    *_REGISTRY,
    argument("name", metavar="NAME[:TAG|@DIGEST]"),
    examples="""\
  $ wherry pull debian                                 library/debian:latest of Docker Hub
  $ wherry pull ghcr.io/owner/app:1.2                  of another registry
  $ wherry pull --platform linux/arm64 debian          for another machine
""",
)
def pull(name: str, all_tags: bool, quiet: bool, **values: Any) -> int:
    """Download an image from a registry"""
    reference = _repository(name, all_tags=all_tags)
    if not quiet and not all_tags and ":" not in name.rpartition("/")[2] and "@" not in name:
        print(f"Using default tag: {reference.tag}", flush=True)
    options = _options({**values, "quiet": quiet})

    def action(engine: Engine) -> int:
        engine.images.pull(reference, options, all_tags=all_tags)
        print(reference.name if all_tags else reference.canonical())
        return 0

    argv = pull.argv(name=name, all_tags=all_tags, quiet=quiet, **values)
    return execute(Command(argv=argv, action=action))


@command(
    option("-a", "--all-tags", type=bool, help="Push all tags of an image to the repository"),
    _TRUST,
    _PLATFORM,
    _QUIET,
    *_REGISTRY,
    argument("name", metavar="NAME[:TAG]"),
    examples="""\
  $ wherry tag app registry.example.com/team/app:1.2
  $ wherry push registry.example.com/team/app:1.2
""",
)
def push(name: str, all_tags: bool, quiet: bool, **values: Any) -> int:
    """Upload an image to a registry"""
    reference = _repository(name, all_tags=all_tags)
    if not quiet and not all_tags and ":" not in name.rpartition("/")[2]:
        print(f"Using default tag: {reference.tag}", flush=True)
    options = _options({**values, "quiet": quiet})

    def action(engine: Engine) -> int:
        engine.images.push(reference, options, all_tags=all_tags)
        if quiet:
            print(reference.name if all_tags else reference.canonical())
        return 0

    argv = push.argv(name=name, all_tags=all_tags, quiet=quiet, **values)
    return execute(Command(argv=argv, action=action))


# ---- tag and rmi ----


@command(
    argument("source", metavar="SOURCE_IMAGE[:TAG]"),
    argument("target", metavar="TARGET_IMAGE[:TAG]"),
)
def tag(source: str, target: str) -> int:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"""

    def action(engine: Engine) -> int:
        engine.images.tag(source, target)
        return 0

    return execute(Command(argv=tag.argv(source=source, target=target), action=action))


@command(
    option("-f", "--force", type=bool, help="Force removal of the image"),
    option("--no-prune", type=bool, help="Do not delete untagged parents"),
    argument("image", nargs=-1),
    examples="""\
  $ wherry rmi $(wherry images -q --filter dangling=true)
""",
)
def rmi(image: tuple[str, ...], force: bool, no_prune: bool) -> int:
    """Remove one or more images"""

    def action(engine: Engine) -> int:
        code = 0
        for name in image:
            try:
                done = engine.images.remove(name, force=force)
            except NotFound as error:
                complain(error.message, error.hint)
                code = code if force else 1
            except WherryError as error:
                complain(error.message, error.hint)
                code = 1
            else:
                print_removed(done)
        return code

    argv = rmi.argv(image=image, force=force, no_prune=no_prune)
    return execute(Command(argv=argv, action=action))


def print_removed(done: Sequence[Mapping[str, str]]) -> None:
    """`Untagged: …` and `Deleted: …`, a line each."""
    for each in done:
        for word, name in each.items():
            print(f"{word}: {name}")


# ---- looking ----


@command(
    common.DOCUMENT_FORMAT,
    option("--platform", help="Inspect a specific platform of the multi-platform image"),
    argument("image", nargs=-1),
    name="image inspect",
)
def inspect(image: tuple[str, ...], format: str, platform: str) -> int:  # noqa: A002
    """Display detailed information on one or more images"""

    def action(engine: Engine) -> int:
        from wherry.cli.inspect import print_found

        return print_found(image, lambda name: engine.images.inspect(name, platform), format)

    argv = inspect.argv(image=image, format=format, platform=platform)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    common.FORMAT,
    option("-H", "--human", type=bool, default=True,
           help="Print sizes and dates in human readable format"),
    common.NO_TRUNC,
    option("--platform", help="Show history for the given platform"),
    option("-q", "--quiet", type=bool, help="Only show image IDs"),
    argument("image"),
)  # fmt: skip
def history(
    image: str,
    format: str,  # noqa: A002
    human: bool,
    no_trunc: bool,
    platform: str,
    quiet: bool,
) -> int:
    """Show the history of an image"""

    def action(engine: Engine) -> int:
        from wherry.cli.tables import Table, print_rows

        table = Table(
            columns=("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
            titles={
                "ID": "IMAGE",
                "CreatedSince": "CREATED" if human else "CREATED AT",
                "CreatedBy": "CREATED BY",
            },
        )
        steps = engine.images.history(image, platform)
        rows = [_step(step, human=human, full=no_trunc) for step in steps]
        print_rows(rows, table, template=format, quiet=quiet)
        return 0

    argv = history.argv(
        image=image, format=format, human=human, no_trunc=no_trunc, platform=platform, quiet=quiet
    )
    return execute(Command(argv=argv, action=action))


def _step(step: Mapping[str, Any], *, human: bool, full: bool) -> dict[str, Any]:
    from wherry.cli.tables import short_id
    from wherry.human import SECOND, ellipsis, human_size
    from wherry.times import ago, format_time

    moment = step["Created"] * SECOND
    made_by = step["CreatedBy"].replace("\t", " ")
    at = format_time(moment)
    return {
        "ID": short_id(step["Id"], full=full),
        "CreatedSince": ago(moment) if human else at,
        "CreatedAt": at,
        "CreatedBy": made_by if full else ellipsis(made_by, 45),
        "Size": human_size(step["Size"], 3) if human else str(step["Size"]),
        "Comment": step["Comment"],
    }


@command(
    option("-a", "--all", type=bool, help="Remove all unused images, not just dangling ones"),
    common.PRUNE_FILTER,
    common.FORCE_PRUNE,
    name="image prune",
)
def prune(all: bool, filter: tuple[str, ...], force: bool) -> int:  # noqa: A002
    """Remove unused images"""
    from wherry.cli.prune import confirm
    from wherry.filters import parse_filters

    filters = parse_filters(filter, _PRUNE_FILTERS)
    what = "images without at least one container associated to them"
    confirm(
        f"WARNING! This will remove all {what if all else 'dangling images'}.",
        "image prune",
        force,
    )

    def action(engine: Engine) -> int:
        from wherry.human import human_size

        result = engine.images.prune(filters, all=all)
        if result["ImagesDeleted"]:
            print("Deleted Images:")
            for each in result["ImagesDeleted"]:
                for word, name in each.items():
                    print(f"{word.lower()}: {name}")
            print()
        print(f"Total reclaimed space: {human_size(result['SpaceReclaimed'])}")
        return 0

    return execute(Command(argv=prune.argv(all=all, filter=filter, force=True), action=action))
