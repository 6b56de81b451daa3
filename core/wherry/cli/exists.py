"""`wherry container exists`, `image exists`, `network exists`, …: the exit code is the answer."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command
from wherry.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.engine import Engine


@command(argument("container"), name="container exists", failure=125)
def container_exists(container: str) -> int:
    """Exit with 0 if there is such a container, and with 1 if there is none"""
    return execute(
        Command(
            argv=container_exists.argv(container=container),
            action=lambda engine: _answer(engine.containers.find, container),
        )
    )


@command(argument("image"), name="image exists", failure=125)
def image_exists(image: str) -> int:
    """Exit with 0 if there is such an image, and with 1 if there is none"""
    return execute(
        Command(
            argv=image_exists.argv(image=image),
            action=lambda engine: _answer(engine.image_store.find, image),
        )
    )


@command(argument("network"), name="network exists", failure=125)
def network_exists(network: str) -> int:
    """Exit with 0 if there is such a network, and with 1 if there is none"""

    def action(engine: Engine) -> int:
        return _answer(engine.networks.store.find, network)

    return execute(Command(argv=network_exists.argv(network=network), action=action))


@command(argument("volume"), name="volume exists", failure=125)
def volume_exists(volume: str) -> int:
    """Exit with 0 if there is such a volume, and with 1 if there is none"""

    def action(engine: Engine) -> int:
        return _answer(engine.volumes.inspect, volume)

    return execute(Command(argv=volume_exists.argv(volume=volume), action=action))


def _answer(find: Callable[[str], object], name: str) -> int:
    try:
        find(name)
    except (NotFound, UsageError):
        return 1  # what no object can be called, none is called
    return 0
