"""`wherry manifest`: manifests in registries, and lists of them.

These run where they are typed, like `login`: the credentials, and the lists that are not
pushed yet, are on the host.
"""

from __future__ import annotations

from wherry.cli.grammar import argument, command, option
from wherry.container.request import PullOptions
from wherry.harmless import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.image.manifest_lists import Found

_INSECURE = option("--insecure", type=bool, help="Allow communication with an insecure registry")


def _options(insecure: bool) -> PullOptions:
    return PullOptions(tls_verify=not insecure)


@command(
    _INSECURE,
    option("-v", "--verbose", type=bool,
           help="Output additional info including layers and platform"),
    argument("name", nargs=-1, metavar="[MANIFEST_LIST] MANIFEST"),
    name="manifest inspect",
)  # fmt: skip
def inspect(name: tuple[str, ...], insecure: bool, verbose: bool) -> int:
    """Display an image manifest, or manifest list"""
    from wherry.errors import UsageError
    from wherry.image.manifest_lists import ManifestList, look_up, look_up_all
    from wherry.image.registry import INDEXES

    if len(name) > 2:
        raise UsageError("'wherry manifest inspect' requires at least 1 and at most 2 arguments")
    options = _options(insecure)
    if len(name) == 2:
        entry = ManifestList(name[0]).entry(name[1])
        _print({"Ref": entry["reference"], "Descriptor": entry["descriptor"]})
        return 0
    if (made_here := ManifestList(name[0])).exists():
        _print(made_here.document())
        return 0
    found = look_up(name[0], options)
    if not verbose:
        _print(found.manifest.document())
    elif found.manifest.media_type in INDEXES:
        _print([_verbose(each) for each in look_up_all(found, options)])
    else:
        _print(_verbose(found))
    return 0


def _verbose(found: Found) -> dict[str, Any]:
    """docker's words for a manifest and what describes it."""
    from base64 import b64encode

    from wherry.image.registry import DOCKER_MANIFEST

    name, digest = found.reference.canonical(), found.descriptor["digest"]
    is_dockers = found.manifest.media_type == DOCKER_MANIFEST
    return {
        "Ref": name if name.endswith(f"@{digest}") else f"{name}@{digest}",
        "Descriptor": found.descriptor,
        "Raw": b64encode(found.manifest.content).decode(),
        "SchemaV2Manifest" if is_dockers else "OCIManifest": found.manifest.document(),
    }


def _print(document: Any) -> None:
    import json

    print(shown(json.dumps(document, indent="\t", ensure_ascii=False)))


@command(
    option("-a", "--amend", type=bool, help="Amend an existing manifest list"),
    _INSECURE,
    argument("manifest_list"),
    argument("manifest", nargs=-1),
    name="manifest create",
    examples="""\
  $ wherry manifest create example.com/app:1 example.com/app:1-amd64 example.com/app:1-arm64
  $ wherry manifest push example.com/app:1
""",
)
def create(manifest_list: str, manifest: tuple[str, ...], amend: bool, insecure: bool) -> int:
    """Create a local manifest list for annotating and pushing to a registry"""
    from wherry.image.manifest_lists import ManifestList

    made = ManifestList(manifest_list)
    made.create(manifest, _options(insecure), amend=amend)
    print(f"Created manifest list {made.reference.canonical()}")
    return 0


@command(
    option("--arch", help="Set architecture"),
    option("--os", help="Set operating system"),
    option("--os-features", multiple=True, help="Set operating system feature"),
    option("--os-version", help="Set operating system version"),
    option("--variant", help="Set architecture variant"),
    argument("manifest_list"),
    argument("manifest"),
    name="manifest annotate",
)
def annotate(manifest_list: str, manifest: str, **values: Any) -> int:
    """Add additional information to a local image manifest"""
    from wherry.image.manifest_lists import ManifestList

    words = {
        "architecture": values["arch"],
        "os": values["os"],
        "os.features": list(values["os_features"]),
        "os.version": values["os_version"],
        "variant": values["variant"],
    }
    given = {key: word for key, word in words.items() if word}
    ManifestList(manifest_list).annotate(manifest, given)
    return 0


@command(
    _INSECURE,
    option("-p", "--purge", type=bool, help="Remove the local manifest list after push"),
    argument("manifest_list"),
    name="manifest push",
)
def push(manifest_list: str, insecure: bool, purge: bool) -> int:
    """Push a manifest list to a repository"""
    from wherry.image.manifest_lists import ManifestList

    made = ManifestList(manifest_list)
    digest = made.push(_options(insecure))
    if purge:
        made.remove()
    print(digest)
    return 0


@command(argument("manifest_list", nargs=-1), name="manifest rm")
def rm(manifest_list: tuple[str, ...]) -> int:
    """Delete one or more manifest lists from local storage"""
    from wherry.cli.each import complain
    from wherry.errors import NotFound
    from wherry.image.manifest_lists import ManifestList

    code = 0
    for name in manifest_list:
        try:
            ManifestList(name).remove()
        except NotFound as error:
            complain(error.message, error.hint)
            code = 1
    return code
