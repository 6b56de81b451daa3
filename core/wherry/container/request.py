"""What is asked of `create` and `run` beside the create body: nothing of it is kept."""

from __future__ import annotations

from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@value
class PullOptions:
    """How to reach a registry for a missing image."""

    platform: str = ""
    # "always", "missing" or "never".
    policy: str = "missing"
    quiet: bool = False
    tls_verify: bool = True
    # "user:password"; "" takes them from docker's config.json.
    credentials: str = ""
    auth_file: str = ""
    retries: int | None = None
    # Nanoseconds.
    retry_delay: int = 0


def pull_options(values: Mapping[str, Any], **more: Any) -> PullOptions:
    """What the options of commands that reach registries say, and `more` fields."""
    return PullOptions(
        tls_verify=values["tls_verify"],
        credentials=values["creds"],
        auth_file=values["authfile"],
        retries=values["retry"],
        retry_delay=values["retry_delay"],
        **more,
    )


@value
class RunRequest:
    """Who the container is to be, and how the command and the container are connected."""

    # "" makes one up.
    name: str = ""
    pull: PullOptions = PullOptions()
    # Remove a container that has the name.
    replace: bool = False
    # Where to write the id, on the machine where the command was typed; "" for nowhere.
    cid_file: str = ""
    # The contents of the body's Secrets, by name.
    secrets: Mapping[str, bytes] = {}
    # The layers (diff ids, the lowest first) that stand for an image in the body's mounts.
    layers: Mapping[str, Sequence[str]] = {}
    # "text" or "json": say what has been made, before the container's own output.
    explain: str = ""
    detach: bool = False
    # "" for docker's.
    detach_keys: str = ""
    sig_proxy: bool = True
