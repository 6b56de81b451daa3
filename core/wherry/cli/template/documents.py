"""Go's types for documents that Python holds as dicts and lists.

docker's templates run on structs, where a wrong field is an error, and on maps such as
labels, where an absent key is nothing. JSON does not tell one from the other, writes
`null` for an empty map or list, and leaves out fields that are empty; the names of
docker's fields do tell.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Struct(dict[str, "Any"]):
    """A Go struct: a fixed set of fields, in an order that means something."""

    def lacking(self, name: str) -> Any:
        """The value of a field that is not among the keys. Raises KeyError for no field."""
        raise KeyError(name)


class Row(Struct):
    """A row of a table: its callables are `Label`, a method, and values that take time."""

    def plain(self) -> dict[str, Any]:
        """The values of all fields."""
        return {
            name: content() if callable(content) else content
            for name, content in self.items()
            if name != "Label"
        }


class Document(Struct):
    """A struct of docker's API.

    Its empty fields may be left out of the JSON, and names differ by case: a container's
    `Id` is `.ID` as well, the `time` of an event is `.Time`.
    """

    def lacking(self, name: str) -> Any:
        folded = name.lower()
        for key in self:
            if key.lower() == folded:
                return self[key]
        if name in _SLICES or name in _ALL_MAPS:
            return _empty(name)
        if name in _TEXTS:
            return ""
        if name in _POINTERS:
            return None
        raise KeyError(name)


class StringMap(dict[str, "Any"]):
    """A Go map of strings: `index` answers an absent key with "". `null` if JSON says so."""

    null = False


class Slice(list["Any"]):
    """A Go slice that may be nil: JSON says `null`, all else sees an empty list."""

    null = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Maps of anything else than strings.
_MAPS = _names(
    """
    AuxiliaryAddresses Containers Endpoints ExposedPorts IndexConfigs Networks PortBindings Ports
    Runtimes Status Volumes
    """
)
_STRING_MAPS = _names(
    """
    Annotations Attributes Data Details DriverOpts Labels LogConfig.Config Options
    StorageOpt Sysctls Tmpfs
    """
)
_ALL_MAPS = _MAPS | _STRING_MAPS
_SLICES = _names(
    """
    Aliases Args Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps
    BlkioDeviceWriteIOps BlkioWeightDevice CDISpecDirs CapAdd CapDrop Cmd Components DNSNames
    DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch Entrypoint Env ExecIDs
    ExtraHosts GroupAdd Layers LinkLocalIPs Links Manifests MaskedPaths Mounts OnBuild
    ReadonlyPaths RepoDigests RepoTags SecurityOpt SecurityOptions Shell Ulimits VolumesFrom
    Warnings
    """
)
_POINTERS = _names(
    """
    ArgsEscaped BindOptions Health Healthcheck ImageManifestDescriptor IPAMConfig Init
    NetworkDisabled OomKillDisable PidsLimit Server SizeRootFs SizeRw StopTimeout TmpfsOptions
    UsageData VolumeOptions
    """
)
_TEXTS = _names(
    """
    Author BuildTime Comment Container Created CreatedAt DockerVersion Driver Experimental Gateway
    GlobalIPv6Address IPAddress IPRange IPv6Gateway IsolationMode MacAddress Name NetworkID
    OsVersion Runtime Source StopSignal Subnet Variant
    """
)


def typed(document: Any, field: str = "", parent: str = "") -> Any:
    """`document`, with structs, maps and lists told apart by the names of their fields."""
    if isinstance(document, dict):
        if field in _STRING_MAPS or f"{parent}.{field}" in _STRING_MAPS:
            return StringMap(document)
        if field in _MAPS:
            # The keys of a map are no fields: they say nothing about the types of values.
            return {key: typed(content) for key, content in document.items()}
        return Document({key: typed(content, key, field) for key, content in document.items()})
    if isinstance(document, list):
        return [typed(item) for item in document]
    if document is None and (field in _SLICES or field in _ALL_MAPS):
        return _empty(field)
    return document


def _empty(field: str) -> Slice | StringMap:
    empty: Slice | StringMap = Slice() if field in _SLICES else StringMap()
    empty.null = True
    return empty
