"""Looking for images in a registry: docker.io's search, and the catalog of others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode  # noqa: TID253

from wherry.errors import AccessDenied, RegistryError
from wherry.image.reference import DEFAULT_DOMAIN
from wherry.image.transport import http_errors
from wherry.values import value

if TYPE_CHECKING:
    from typing import Any

    from wherry.image.registry import Registry

_DOCKER_IO_INDEX = "https://index.docker.io"
_MAX_ANSWER = 8 << 20


@value
class Found:
    """One repository that a search came upon."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False
    is_automated: bool = False


def search(registry: Registry, term: str, limit: int) -> list[Found]:
    """Repositories that match `term`, as the registry orders them.

    Only docker.io and a few others have a search; of the rest the catalog is read.
    """
    is_docker_io = registry.domain == DEFAULT_DOMAIN
    base = _DOCKER_IO_INDEX if is_docker_io else ""
    query = urlencode({"q": term, "n": limit})
    answer = _get(registry, f"{base}/v1/search?{query}")
    if answer is not None:
        return [_found(entry) for entry in answer.get("results") or ()]
    catalog = None if is_docker_io else _get(registry, "/v2/_catalog?n=1000")
    if catalog is None:
        raise RegistryError(f"{registry.domain} cannot be searched")
    names = [str(name) for name in catalog.get("repositories") or ()]
    return [
        Found(name=f"{registry.domain}/{name}") for name in names if term.lower() in name.lower()
    ][:limit]


def _get(registry: Registry, path: str) -> dict[str, Any] | None:
    """The JSON object at `path`; None where the registry has no such thing."""
    response = registry.get(path, "registry:catalog:*" if "_catalog" in path else "")
    if response.status != 200:
        response.drain_conn()
        if response.status in (404, 405):
            return None
        if response.status in (401, 403):
            raise AccessDenied(
                f"{registry.domain} denied access to its list of repositories",
                hint=f"wherry login {registry.domain}",
            )
        raise RegistryError(f"cannot search {registry.domain}: it answered {response.status}")
    with http_errors(registry.host):
        content = response.read(_MAX_ANSWER)
        response.release_conn()
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _found(entry: dict[str, Any]) -> Found:
    return Found(
        name=str(entry.get("name") or ""),
        description=str(entry.get("description") or ""),
        stars=int(str(entry.get("star_count") or 0)),
        is_official=bool(entry.get("is_official")),
        is_automated=bool(entry.get("is_automated")),
    )
