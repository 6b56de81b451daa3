"""Where a mount's files are on the host."""

from __future__ import annotations

import os

from wherry.errors import UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import Mount as Asked


def bind_source(asked: Asked) -> str:
    """The host path of a bind, which `-v` makes where it is missing."""
    source = asked["Source"]
    try:
        os.stat(source)
    except FileNotFoundError:
        if not (asked.get("BindOptions") or {}).get("CreateMountpoint"):
            raise UsageError(
                f'invalid mount config for type "bind": bind source path does not exist: {source}',
                hint="-v makes a missing directory, and so does --mount with bind-create-src",
            ) from None
        try:
            os.makedirs(source, 0o755, exist_ok=True)
        except OSError as error:
            raise WherryError(
                f"error while creating mount source path '{source}': {error.strerror}"
            ) from error
    except OSError as error:
        raise WherryError(f"cannot read bind source path {source}: {error.strerror}") from error
    return source


def overlay_directory(directory: str, position: int) -> str:
    """What a container's overlay is kept in: `upper` and `work`; of its mounts the `position`th."""
    return os.path.join(directory, "overlays", str(position))
