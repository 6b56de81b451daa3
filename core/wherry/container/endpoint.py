"""Networks, hosts and addresses as docker's options write them."""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.words import is_ip, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import EndpointSettings

_LIST_FIELDS = ("alias", "link-local-ip", "driver-opt")
_FIELDS = ("name", "ip", "ip6", "mac-address", "gw-priority", *_LIST_FIELDS)
_HEX = frozenset("0123456789abcdefABCDEF")


def read_network(text: str) -> tuple[str, EndpointSettings]:
    """`--network`: a name, or `name=NAME,alias=…,ip=…`."""
    if "=" not in text:
        # podman's `slirp4netns:options`, and `container:ID`, are names too.
        return text, {}
    settings: EndpointSettings = {}
    fields: dict[str, list[str]] = {}
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid field {field}")
        if key not in _FIELDS:
            raise UsageError(f"invalid field key {key}")
        if key in fields and key not in _LIST_FIELDS:
            raise UsageError(f"field {key} is given twice")
        fields.setdefault(key, []).append(content.strip())
    if aliases := fields.get("alias"):
        settings["Aliases"] = aliases
    addresses = {
        key: fields[field][0]
        for key, field in (("IPv4Address", "ip"), ("IPv6Address", "ip6"))
        if field in fields
    }
    for address in (*addresses.values(), *fields.get("link-local-ip", ())):
        read_ip(address)
    if addresses:
        settings["IPAMConfig"] = addresses  # type: ignore[typeddict-item]
    if local := fields.get("link-local-ip"):
        settings["IPAMConfig"] = {**settings.get("IPAMConfig", {}), "LinkLocalIPs": local}
    if mac := fields.get("mac-address"):
        settings["MacAddress"] = read_mac(mac[0])
    if options := fields.get("driver-opt"):
        settings["DriverOpts"] = dict(_driver_option(option) for option in options)
    if priority := fields.get("gw-priority"):
        try:
            settings["GwPriority"] = int(priority[0])
        except ValueError:
            raise UsageError(f"invalid gw-priority ({priority[0]}): not a number") from None
    return fields.get("name", ["default"])[0] or "default", settings


def _driver_option(text: str) -> tuple[str, str]:
    key, equals, content = text.partition("=")
    if not equals or not key:
        raise UsageError("invalid key value pair format in driver options")
    return key.strip().lower(), content.strip()


def read_ip(text: str) -> str:
    """An IP address."""
    if not is_ip(text):
        raise UsageError(f"IP address is not correctly formatted: {text}")
    return text


def read_mac(text: str) -> str:
    """A MAC address: six bytes, apart by colons or dashes."""
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and _HEX.issuperset(part) for part in parts):
        raise UsageError(f"{text} is not a valid mac address")
    return text


def read_extra_host(text: str) -> str:
    """`name:ip`, `name=ip`, `name:host-gateway`, `name:[::1]`: docker's `name:ip`."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name:
        raise UsageError(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway" and not is_ip(address):
        raise UsageError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def read_dns_search(text: str) -> str:
    """A domain; `.` stands for none."""
    text = text.strip()
    if text == ".":
        return text
    labels = text.rstrip(".").split(".")
    allowed = all(
        label and len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
    if not allowed or len(text) > 255:
        raise UsageError(f"{text} is not a valid domain")
    return text


def read_link(text: str) -> tuple[str, str]:
    """`container:alias`, or a container that is its own alias."""
    parts = text.split(":")
    if len(parts) > 2:
        raise UsageError(f"bad format for links: {text}")
    if not parts[0] or not parts[-1]:
        raise UsageError(f"invalid empty name in link: {text!r}")
    return parts[0], parts[-1].lstrip("/")
