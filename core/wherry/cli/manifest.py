"""`wherry manifest inspect`: a manifest or an index as its registry has it."""

from __future__ import annotations

import sys

from wherry.cli.grammar import argument, command, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.image.reference import Reference
    from wherry.image.registry import Manifest, Registry


@command(
    option("--insecure", type=bool, help="Allow communication with an insecure registry"),
    option("--tls-verify", type=bool, default=True,
           help="Require HTTPS and a valid certificate of the registry"),
    option("-v", "--verbose", type=bool,
           help="Output additional info including layers and platform"),
    argument("manifest"),
    name="manifest inspect",
)  # fmt: skip
def inspect(manifest: str, insecure: bool, tls_verify: bool, verbose: bool) -> int:
    """Display an image manifest, or manifest list"""
    from wherry.image.reference import parse_reference
    from wherry.image.registry import open_registry

    reference = parse_reference(manifest)
    registry = open_registry(
        reference.domain,
        reference.path,
        insecure=insecure or not tls_verify,
        on_pause=lambda seconds, reason: print(
            f"{reason}; retrying in {seconds:.0f} seconds", file=sys.stderr
        ),
    )
    found = registry.manifest(reference)
    _print(_verbose(registry, reference, found) if verbose else found.document())
    return 0


def _print(document: object) -> None:
    import json

    print(json.dumps(document, indent="\t" if isinstance(document, list) else 3))


def _verbose(registry: Registry, reference: Reference, found: Manifest) -> Any:
    """Each manifest with its descriptor: a list for an index, as docker writes it."""
    document = found.document()
    if "manifests" not in document:
        config = registry.read_blob(
            reference, document["config"]["digest"], document["config"]["size"]
        )
        return _entry(reference, found, {**found.descriptor, "platform": _platform(config)})
    entries = []
    for descriptor in document["manifests"]:
        one = reference.with_digest(descriptor["digest"])
        entries.append(_entry(one, registry.manifest(one), descriptor))
    return entries


def _entry(reference: Reference, found: Manifest, descriptor: Any) -> dict[str, Any]:
    kind = "OCIManifest" if ".oci." in found.media_type else "SchemaV2Manifest"
    return {"Ref": str(reference), "Descriptor": descriptor, kind: found.document()}


def _platform(config: bytes) -> dict[str, str]:
    import json

    document = json.loads(config)
    return {
        name: document[name] for name in ("architecture", "os", "variant") if document.get(name)
    }
