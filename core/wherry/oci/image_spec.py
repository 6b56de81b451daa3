"""Documents of image-spec v1.1 as types. Import under TYPE_CHECKING only."""

from __future__ import annotations

from typing import Any, TypedDict


class Platform(TypedDict, total=False):
    architecture: str
    os: str
    variant: str


class _RequiredDescriptor(TypedDict):
    mediaType: str
    digest: str
    size: int


class Descriptor(_RequiredDescriptor, total=False):
    """What points to content: its type, digest and size."""

    urls: list[str]
    annotations: dict[str, str]
    data: str
    artifactType: str
    platform: Platform


class Manifest(TypedDict, total=False):
    schemaVersion: int
    mediaType: str
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str]


class RootFS(TypedDict):
    type: str
    diff_ids: list[str]


class History(TypedDict, total=False):
    created: str
    created_by: str
    author: str
    comment: str
    empty_layer: bool


class ImageConfig(TypedDict, total=False):
    """The config document of an image."""

    created: str
    author: str
    architecture: str
    os: str
    variant: str
    config: dict[str, Any]
    rootfs: RootFS
    history: list[History]
