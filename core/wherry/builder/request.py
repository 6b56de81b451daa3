"""What is asked of a build."""

from __future__ import annotations

from wherry.container.request import PullOptions
from wherry.errors import UsageError
from wherry.values import value
from wherry.words import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.builder.context import Context, ImageLayout
    from wherry.builder.exchange import Cache
    from wherry.builder.export import Output

    Given = Context | ImageLayout | str


@value
class BuildRequest:
    """One build: what is built, of what, and what becomes of it."""

    # The text of the Dockerfile, and what it is called in messages.
    dockerfile: str
    dockerfile_name: str = "Dockerfile"
    context: Context
    # Directories, images of layouts, and images by their URLs, that stand for a name in FROM
    # and --from: by `context_key`.
    contexts: Mapping[str, Given] = {}
    target: str = ""
    args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    # One image for each; this host's where there is none.
    platforms: tuple[str, ...] = ()
    # Of RUN steps.
    network: str = ""
    host_config: Mapping[str, Any] = {}
    # The part of HostConfig that only limits them: no cache key has it.
    resources: Mapping[str, Any] = {}
    own_config: Mapping[str, Any] = {}
    # How many are carried out at a time; 0 for as many as there are processors.
    jobs: int = 0
    # An image in the place of the first FROM's.
    base: str = ""
    # Variables that images get in FROM, and what is not left of the last one's in the end.
    env: Mapping[str, str] = {}
    unset_env: tuple[str, ...] = ()
    unset_labels: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}
    omits_history: bool = False
    # The contents of `--secret`, by id.
    secrets: Mapping[str, bytes] = {}
    # Where agents are, by the id of `--ssh`; see `agents.read_agents`.
    ssh: Mapping[str, str] = {}
    # What the Dockerfile may ask for: "network.host", "security.insecure", "device".
    allow: tuple[str, ...] = ()
    # Ask the cache for nothing, or for nothing of these stages.
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    # What is asked before a step is carried out, and what is told of it in the end.
    caches_from: tuple[Cache, ...] = ()
    caches_to: tuple[Cache, ...] = ()
    pull_options: PullOptions = PullOptions()
    tags: tuple[str, ...] = ()
    squash: bool = False
    squash_all: bool = False
    # What it leaves; an image of the store where nothing is asked for.
    outputs: tuple[Output, ...] = ()
    # "auto", "plain", "tty", "quiet".
    progress: str = "auto"
    quiet: bool = False
    iid_file: str = ""
    metadata_file: str = ""
    # SOURCE_DATE_EPOCH, in seconds; None for the time that it is.
    epoch: int | None = None

    def context_named(self, name: str) -> Given | None:
        """The context that stands for a name; None where there is none."""
        from wherry.builder.context import context_key

        return self.contexts.get(context_key(name)) if self.contexts else None


EPOCH = "SOURCE_DATE_EPOCH"
"""The build argument, and the variable of the host, that tells the moment of a build."""


def read_epoch(text: str) -> int | None:
    """The seconds that it tells; None for nothing, or `context`, which is told of elsewhere."""
    if text in ("", "context"):
        return None
    if not text.isdecimal():
        raise UsageError(f"invalid {EPOCH}: {text}")
    return int(text)


def read_fields(text: str) -> dict[str, str]:
    """`KEY=VALUE,…`, as several options are written. Raises UsageError."""
    fields: dict[str, str] = {}
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        if not equals:
            raise UsageError(f"invalid value {field}: expected key=value")
        fields[key.strip().lower()] = content
    return fields
