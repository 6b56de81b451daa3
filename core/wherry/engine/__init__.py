"""The verbs of wherry, over one Runtime. The command line and the API both come here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import ContainerStore
    from wherry.engine.containers import Containers
    from wherry.engine.images import Images
    from wherry.engine.networks import Networks
    from wherry.engine.system import System
    from wherry.engine.volumes import Volumes
    from wherry.image.store import ImageStore
    from wherry.runtime import Runtime


class Engine:
    """Containers, images, volumes and networks of this user on this system.

    Each part is made when it is first asked for: `ps` does not pay for images.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._containers: Containers | None = None
        self._images: Images | None = None
        self._volumes: Volumes | None = None

    @property
    def container_store(self) -> ContainerStore:
        """The containers there are, as files."""
        from wherry.container.store import ContainerStore

        return ContainerStore()

    @property
    def image_store(self) -> ImageStore:
        """The images there are, as files."""
        from wherry.image.store import ImageStore

        return ImageStore()

    @property
    def containers(self) -> Containers:
        if self._containers is None:
            from wherry.engine.containers import Containers

            self._containers = Containers(self)
        return self._containers

    @property
    def images(self) -> Images:
        if self._images is None:
            from wherry.engine.images import Images

            self._images = Images(
                self.image_store,
                self.runtime.unshared,
                self.containers.image_users,
                self.used_layers,
            )
        return self._images

    def used_layers(self) -> set[str]:
        """The diff ids of the layers that containers stand on, or that are mounted."""
        from wherry.engine import image_mounts

        return self.container_store.used_layers() | image_mounts.used_layers()

    @property
    def volumes(self) -> Volumes:
        if self._volumes is None:
            from wherry.engine.volumes import Volumes

            self._volumes = Volumes(self.runtime.unshared, self.container_store.volume_users)
        return self._volumes

    @property
    def networks(self) -> Networks:
        from wherry.engine.networks import Networks

        return Networks(self)

    @property
    def system(self) -> System:
        from wherry.engine.system import System

        return System(self)
