"""`wherry image mount` and `unmount`: an image's files on the host, as podman has them."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.each import for_each
from wherry.cli.grammar import argument, command, option
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.engine import Engine

_ALL = option("-a", "--all", type=bool, help="Every image that there is")


@command(
    _ALL,
    option("--format", choices=("json",), help='Print what is mounted as "json"'),
    argument("images", nargs=-1, required=False, metavar="IMAGE"),
    name="image mount",
    failure=125,
    examples="""\
  # wherry image mount debian                          where its files can be read
  # wherry image mount                                 what is mounted
""",
)
def mount(all: bool, format: str, images: tuple[str, ...]) -> int:  # noqa: A002
    """Mount an image's files on the host, read-only"""
    if all and images:
        raise UsageError("--all names every image: there is none to name beside it")

    def action(engine: Engine) -> int:
        from wherry.engine import image_mounts

        if not (all or images):
            _show(engine, format)
            return 0
        names = [image.id for image in engine.image_store.images()] if all else images
        if len(names) == 1:
            print(image_mounts.mount(engine, names[0]))
            return 0
        return for_each(
            names, lambda name: print(name, image_mounts.mount(engine, name)), echo=False
        )

    argv = mount.argv(all=all, format=format, images=images)
    return execute(Command(argv=argv, action=action))


@command(
    _ALL,
    option("-f", "--force", type=bool, help="However often it was mounted"),
    argument("images", nargs=-1, required=False, metavar="IMAGE"),
    name="image unmount",
    failure=125,
)
def unmount(all: bool, force: bool, images: tuple[str, ...]) -> int:  # noqa: A002
    """Unmount an image's files"""
    if all is bool(images):
        raise UsageError("image unmount takes the images to unmount, or --all")

    def action(engine: Engine) -> int:
        from wherry.engine import image_mounts

        standing = [each.image_id for each in image_mounts.mounted(engine)]
        return for_each(
            standing if all else images,
            lambda name: print(image_mounts.unmount(engine, name, force=force or all)),
            echo=False,
        )

    argv = unmount.argv(all=all, force=force, images=images)
    return execute(Command(argv=argv, action=action))


def _show(engine: Engine, template: str) -> None:
    from wherry.engine import image_mounts

    names = {image.id: image.references for image in engine.image_store.images()}
    found: list[dict[str, Any]] = [
        {
            "id": each.image_id.rpartition(":")[2],
            "Repositories": list(names.get(each.image_id, ())),
            "mountpoint": each.path,
        }
        for each in image_mounts.mounted(engine)
    ]
    if template:
        from wherry.cli.inspection import indented

        print(indented(found))
        return
    for each in found:
        print(" ".join(each["Repositories"][:1]) or each["id"][:12], each["mountpoint"])
