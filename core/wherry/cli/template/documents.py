"""Go's types for documents that Python holds as dicts and lists.

docker's templates run on structs, where a wrong field is an error, and on maps such as
labels, where an absent key is nothing. JSON does not tell one from the other and writes
`null` for an empty map or list; the names of docker's fields do tell.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Struct(dict[str, "Any"]):
    """A Go struct: a fixed set of fields, in an order that means something."""


class StringMap(dict[str, "Any"]):
    """A Go map of strings: `index` answers an absent key with "". `null` if JSON says so."""

    null = False


class Slice(list["Any"]):
    """A Go slice that may be nil: JSON says `null`, all else sees an empty list."""

    null = False


# Fields of docker's documents that are maps of anything else than strings.
_MAPS = frozenset(
    """
    Containers ExposedPorts Networks PortBindings Ports Runtimes Volumes Endpoints
    DeviceRequests AuxiliaryAddresses IndexConfigs
    """.split()  # noqa: SIM905
)
_STRING_MAPS = frozenset(
    """
    Annotations AuxAddress Config.Config Data Details DriverOpts Labels LogConfig.Config Options
    Storage StorageOpt Sysctls Tmpfs UsernsMappings
    """.split()  # noqa: SIM905
)
_SLICES = frozenset(
    """
    Aliases Args Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps
    BlkioDeviceWriteIOps BlkioWeightDevice CapAdd CapDrop Cmd ConsoleSize DNSNames
    DeviceCgroupRules Devices Dns DnsOptions DnsSearch Entrypoint Env ExecIDs ExtraHosts GroupAdd
    IPAMConfigs Layers Links MaskedPaths Mounts OnBuild ReadonlyPaths RepoDigests RepoTags
    SecurityOpt SecurityOptions Shell Ulimits VolumesFrom Warnings
    """.split()  # noqa: SIM905
)


def typed(document: Any, field: str = "", parent: str = "") -> Any:
    """`document`, with structs, maps and lists told apart by the names of their fields."""
    if isinstance(document, Struct | StringMap | Slice):
        return document
    if isinstance(document, dict):
        if field in _STRING_MAPS or f"{parent}.{field}" in _STRING_MAPS:
            return StringMap(document)
        fields = {key: typed(value, key, field) for key, value in document.items()}
        # The keys of a map are no fields: they say nothing about their values' types.
        return fields if field in _MAPS else Struct(fields)
    if isinstance(document, list):
        return [typed(item) for item in document]
    if document is None and field in _SLICES:
        return _null(Slice())
    if document is None and (field in _STRING_MAPS or field in _MAPS):
        return _null(StringMap())
    return document


def _null(collection: Any) -> Any:
    collection.null = True
    return collection
