"""What is done to images: the verbs of `wherry image`."""

from __future__ import annotations

import sys

from wherry.errors import Conflict, NotFound, UsageError
from wherry.image.layers import unpack, unpack_layers
from wherry.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.container.request import PullOptions
    from wherry.filters import Filters
    from wherry.image.archive import Loaded
    from wherry.image.layers import Layer
    from wherry.image.reference import Reference
    from wherry.image.store import Image, ImageStore


class Images:
    """All images of this user; answers are the documents of the Docker Engine API."""

    def __init__(
        self,
        store: ImageStore,
        unshared: Callable[[Callable[[], Any]], Any],
        users: Callable[[], list[tuple[str, str, bool]]],
        used_layers: Callable[[], set[str]],
    ) -> None:
        """`users` tells of every container its id, its image's id, and whether it runs;

        `used_layers` the diff ids that containers stand on.
        """
        self.store = store
        self._unshared = unshared
        self._users = users
        self._used_layers = used_layers

    # ---- to and from registries ----

    def obtain(self, name: str, pull: PullOptions) -> Image:
        """Pull an image that a container needs."""
        reference = parse_reference(name)
        if pull.policy != "always" and not pull.quiet:
            print(f"Unable to find image '{reference.familiar()}' locally", file=sys.stderr)
        self.pull(reference, pull)
        return self.store.find(name, pull.platform or None)

    def pull(self, reference: Reference, options: PullOptions, *, all_tags: bool = False) -> None:
        """Bring an image, or every tag of a repository, from its registry."""
        from wherry.image.connect import connect
        from wherry.image.progress import open_progress
        from wherry.image.pull import pull_image

        with open_progress(quiet=options.quiet) as progress:
            registry = connect(reference, progress, options)
            tags = registry.tags(reference) if all_tags else []
            if all_tags and not tags:
                raise NotFound(f"{reference.familiar_name} has no tags")
            for one in [reference.with_tag(tag) for tag in tags] or [reference]:
                pull_image(
                    self.store,
                    one,
                    platform=options.platform or None,
                    progress=progress,
                    unpack=self.unpack_arriving,
                    registry=registry,
                )

    def push(self, reference: Reference, options: PullOptions, *, all_tags: bool = False) -> None:
        """Put an image, or every tag of a repository, into its registry."""
        from wherry.image.blobs import compress
        from wherry.image.connect import connect
        from wherry.image.progress import open_progress
        from wherry.image.push import push_images

        pairs = self._tags_of(reference) if all_tags else []
        if not all_tags:
            try:
                image = self.store.find(reference.canonical())
            except NotFound:
                raise NotFound(
                    f"An image does not exist locally with the tag: {reference.familiar_name}"
                ) from None
            pairs = [(reference, image)]
        # What is found must not go before it is there.
        with self.store.held(), open_progress(quiet=options.quiet) as progress:
            registry = connect(reference, progress, options)
            push_images(
                self.store,
                [(one, compress(self.store, image, self._unshared)) for one, image in pairs],
                platform=options.platform or None,
                progress=progress,
                registry=registry,
            )

    def _tags_of(self, repository: Reference) -> list[tuple[Reference, Image]]:
        pairs = [
            (name, self.store.find(name.canonical()))
            for image in self.store.images()
            for name in map(parse_reference, image.references)
            if name.name == repository.name and name.tag and not name.digest
        ]
        if not pairs:
            raise NotFound(
                f"An image does not exist locally with the tag: {repository.familiar_name}"
            )
        return pairs

    def unpack(self, image: Image) -> None:
        """Unpack what is not unpacked yet."""
        _warn(unpack_layers(self.store, image, self._unshared))

    def unpack_arriving(self, layers: Sequence[Layer]) -> None:
        """Unpack layers whose image has no name yet."""
        _warn(unpack(layers, self._unshared))

    # ---- archives ----

    def load(self, read: Callable[[int], bytes], *, platform: str = "") -> Sequence[Loaded]:
        """Bring the images of an archive, compressed or not; `read(size)` gives its bytes."""
        from wherry.image.archive import load

        loaded = load(self.store, read, platform=platform or None, unpack=self.unpack_arriving)
        for image in loaded:
            _event("load", image.id, image.id)
        return loaded

    def save(
        self, names: Sequence[str], write: Callable[[bytes], object], *, platform: str = ""
    ) -> None:
        """Write images as one archive, those given by name with that name."""
        from wherry.image.blobs import complete
        from wherry.image.save import save

        # What is found must not go before it is written.
        with self.store.held():
            found = [(self.store.find(name, platform or None), name) for name in names]
            for image, _ in found:
                complete(self.store, image, self._unshared)
            chosen = [(image, _named(image, name) or "") for image, name in found]
            save(self.store, chosen, write, platform=platform or None)

    def import_tree(
        self,
        read: Callable[[int], bytes],
        name: str = "",
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> str:
        """Make an image of a tar of files, compressed or not; its id."""
        from wherry.builder.changes import apply_changes
        from wherry.image.importing import import_tree
        from wherry.image.platform import host_platform, parse_platform
        from wherry.timestamps import now

        wanted = parse_platform(platform) if platform else host_platform()
        moment = now()
        config: dict[str, Any] = {
            "created": moment,
            "architecture": wanted.architecture,
            "os": wanted.os,
            "config": apply_changes({}, changes),
            "history": [{"created": moment, "comment": message or "Imported from -"}],
        }
        if wanted.variant:
            config["variant"] = wanted.variant
        reference = parse_reference(name).canonical() if name else ""
        image_id = import_tree(
            self.store, read, config=config, unpack=self.unpack_arriving, reference=reference
        )
        _event("import", image_id, name or image_id)
        return image_id

    # ---- looking ----

    def list(self, filters: Filters | None = None) -> list[dict[str, Any]]:
        """Images as /images/json has them, the newest first."""
        from wherry.image.documents import summary

        images = self._filtered(filters or {})
        entries = [summary(image) for image in images]
        entries.sort(key=lambda entry: int(entry["Created"]), reverse=True)
        return entries

    def _filtered(self, filters: Filters) -> tuple[Image, ...]:
        from wherry import filters as ask
        from wherry.image.documents import created
        from wherry.times import parse_timestamp

        dangling = ask.parse_boolean(filters, "dangling")
        before = [created(self.store.find(name).config) for name in filters.get("before", ())]
        since = [created(self.store.find(name).config) for name in filters.get("since", ())]
        until = [parse_timestamp(text) for text in filters.get("until", ())]

        def agrees(image: Image) -> bool:
            moment = created(image.config)
            return (
                (dangling is None or dangling == (not image.references))
                and all(moment < limit for limit in before)
                and all(moment > limit for limit in since)
                and all(moment < limit for limit in until)
                and ask.matches_id(filters, image.id)
                and ask.matches_labels(filters, (image.config.get("config") or {}).get("Labels"))
                and ask.matches(filters, "reference", lambda text: bool(_matching(image, text)))
            )

        return tuple(image for image in self.store.images() if agrees(image))

    def inspect(self, name: str, platform: str = "") -> dict[str, Any]:
        """docker's `image inspect`."""
        from wherry.image.documents import inspect

        return inspect(self.store.whole(self.store.find(name, platform or None)))

    def history(self, name: str, platform: str = "") -> Sequence[dict[str, Any]]:
        """The steps that made an image, the last first."""
        from wherry.image.documents import history

        return history(self.store.find(name, platform or None))

    # ---- naming and removing ----

    def tag(self, source: str, target: str) -> None:
        """Give an image one more name."""
        reference = parse_reference(target)
        if reference.digest:
            raise UsageError("refusing to create a tag with a digest reference")
        image = self.store.find(source)
        self.store.tag(reference.canonical(), image.descriptor)
        _event("tag", image.id, reference.familiar())

    def remove(self, name: str, *, force: bool = False) -> Sequence[dict[str, str]]:
        """Take a name from an image; with its last name the image itself goes."""
        image = self.store.whole(self.store.find(name))
        done = self._release(image, name, force=force)
        self.collect()
        return done

    def _release(self, image: Image, name: str, *, force: bool) -> Sequence[dict[str, str]]:
        users = [(each, runs) for each, used, runs in self._users() if used == image.id]
        reference = _named(image, name)
        if reference is not None and len(image.references) > 1:
            self.store.untag(reference, forget=True)
            return [_untagged(image, reference)]
        self._check_removable(image, name, reference, users, force)
        done = [_untagged(image, each) for each in image.references]
        done += [{"Untagged": each} for each in image.repo_digests]
        if force and any(runs for _, runs in users):
            # Its containers go on: it only has no name any more.
            for each in image.references:
                self.store.untag(each)
            return done
        self.store.drop(image.descriptor["digest"], *image.others)
        _event("delete", image.id, image.id)
        return [*done, {"Deleted": image.id}]

    def _check_removable(
        self,
        image: Image,
        name: str,
        reference: str | None,
        users: Sequence[tuple[str, bool]],
        force: bool,
    ) -> None:
        """Raise docker's Conflict where something stands in the way."""
        short = image.id.rpartition(":")[2][:12]
        running = next((container for container, runs in users if runs), None)
        if reference is None and running:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - "
                f"image is being used by running container {running[:12]}"
            )
        if force:
            return
        if users and reference is not None:
            raise Conflict(
                f'conflict: unable to remove repository reference "{name}" (must force) - '
                f"container {users[0][0][:12]} is using its referenced image {short}"
            )
        if users:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - "
                f"image is being used by stopped container {users[0][0][:12]}"
            )
        if reference is None and len({parse_reference(n).name for n in image.references}) > 1:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - "
                "image is referenced in multiple repositories"
            )

    def prune(self, filters: Filters | None = None, *, all: bool = False) -> dict[str, Any]:  # noqa: A002
        """Remove the images without a name, or `all` that no container uses."""
        from wherry import events
        from wherry import filters as ask

        filters = dict(filters or {})
        # docker spells `--all` so in its API.
        everything = all or ask.parse_boolean(filters, "dangling") is False
        filters.pop("dangling", None)
        used = {image for _, image, _ in self._users()}
        deleted: list[dict[str, str]] = []
        for image in self._filtered(filters):
            if image.id in used or (image.references and not everything):
                continue
            self.store.drop(image.descriptor["digest"], *image.others)
            deleted += [_untagged(image, each) for each in image.references]
            deleted.append({"Deleted": image.id})
            _event("delete", image.id, image.id)
        reclaimed = self.collect()
        events.record_prune("image", reclaimed)
        return {"ImagesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def collect(self) -> int:
        """Remove what no image, container or build needs any more; the bytes it gave back."""
        from wherry.image.garbage import collect

        return collect(self.store, self._used_layers(), self._unshared)


def _named(image: Image, name: str) -> str | None:
    """The full name that `name` stands for; None where it is an id."""
    try:
        wanted = parse_reference(name).canonical()
    except UsageError:
        return None
    return wanted if wanted in image.references else None


def _untagged(image: Image, reference: str) -> dict[str, str]:
    familiar = parse_reference(reference).familiar()
    _event("untag", image.id, familiar)
    return {"Untagged": familiar}


def _matching(image: Image, pattern: str) -> Sequence[str]:
    """The image's tags that `reference=PATTERN` means."""
    from wherry.image.documents import familiar_names

    return [name for name in familiar_names(image) if matches_pattern(name, pattern)]


def matches_pattern(name: str, pattern: str) -> bool:
    """Whether a familiar name is meant by a glob; `*` does not reach over a slash."""
    from fnmatch import fnmatchcase

    repository = name.rpartition(":")[0]
    parts = pattern.split("/")
    return any(
        len(each.split("/")) == len(parts) and all(map(fnmatchcase, each.split("/"), parts))
        for each in (name, repository)
    )


def _event(action: str, identity: str, name: str) -> None:
    from wherry import events

    events.record("image", action, identity, {"name": name})


def _warn(warnings: Sequence[str]) -> None:
    from wherry.harmless import warn

    for line in warnings:
        warn(line)
