"""Limits and devices as docker's options write them, and as the create body holds them."""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.words import read_bytes, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import (
        DeviceMapping,
        DeviceRequest,
        ThrottleDevice,
        Ulimit,
        WeightDevice,
    )

_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip

NANO = 1_000_000_000


def read_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`; -1 is unlimited."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise UsageError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise UsageError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise UsageError(
            f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        )
    soft, hard = (_ulimit_number(parts[0]), _ulimit_number(parts[-1]))
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return {"Name": name, "Soft": soft, "Hard": hard}


def _ulimit_number(text: str) -> int:
    if text == "unlimited":
        return -1
    try:
        number = int(text)
    except ValueError:
        number = -2
    if number < -1:
        raise UsageError(f"must be a whole number, or -1 for no limit: {text!r}")
    return number


def read_cpus(text: str) -> int:
    """A number of CPUs, in billionths."""
    try:
        cpus = float(text)
        nano = round(cpus * NANO)
    except (ValueError, OverflowError):
        raise UsageError(f"failed to parse {text} as a rational number") from None
    if nano < 0:
        raise UsageError("a number of CPUs cannot be negative")
    return nano


def write_cpus(nano: int) -> str:
    """A text that `read_cpus` reads back."""
    return f"{nano // NANO}.{nano % NANO:09d}"


def read_swap(text: str) -> int:
    """A size, or -1 for as much swap as there is."""
    return -1 if text == "-1" else read_bytes(text)


def read_throttle_bps(text: str) -> ThrottleDevice:
    """`/dev/sda:1mb`, for bytes in a second."""
    path, size = _device_and_number(text)
    try:
        rate = read_bytes(size)
    except ValueError:
        rate = 0
    if rate <= 0:
        raise UsageError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>[<unit>]. Number must be a positive integer. "
            "Unit is optional and can be kb, mb, or gb"
        )
    return {"Path": path, "Rate": rate}


def read_throttle_iops(text: str) -> ThrottleDevice:
    """`/dev/sda:1000`, for operations in a second."""
    path, number = _device_and_number(text)
    if not (number.isascii() and number.isdigit() and int(number)):
        raise UsageError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>. Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(number)}


def read_weight_device(text: str) -> WeightDevice:
    """`/dev/sda:500`."""
    path, number = _device_and_number(text)
    weight = int(number) if number.isascii() and number.isdigit() else -1
    if weight != 0 and not 10 <= weight <= 1000:
        raise UsageError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": weight}


def _device_and_number(text: str) -> tuple[str, str]:
    path, colon, number = text.rpartition(":")
    if not colon or not path:
        raise UsageError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise UsageError(f"bad format for device path: {text}")
    return path, number


def is_cdi_name(text: str) -> bool:
    """Whether `--device` names a device of the Container Device Interface: vendor/class=name."""
    kind, equals, name = text.partition("=")
    vendor, slash, device_class = kind.partition("/")
    return bool(equals and name and slash and vendor and device_class and "/" not in device_class)


def read_device(text: str) -> DeviceMapping:
    """`/dev/x`, `/dev/x:rwm`, `/dev/x:/dev/y`, `/dev/x:/dev/y:r`."""
    source, *rest = text.split(":")
    if len(rest) > 2 or not source:
        raise UsageError(f"invalid device specification: {text}")
    if not source.startswith("/"):
        raise UsageError(f"bad format for path: {text}", hint="a device is named by its path")
    target, mode = source, "rwm"
    if len(rest) == 2:
        target, mode = rest
    elif rest and _is_device_mode(rest[0]):
        mode = rest[0]
    elif rest:
        target = rest[0]
    if not _is_device_mode(mode):
        raise UsageError(f"invalid device mode: {mode}")
    if not target.startswith("/"):
        raise UsageError(f"{target} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}


def _is_device_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set("rwm").issuperset(text)


def read_device_rule(text: str) -> str:
    """`c 10:229 rwm`."""
    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    if (
        len(numbers) != 2
        or words[0] not in ("a", "b", "c")
        or not all(number == "*" or number.isdecimal() for number in numbers)
        or not _is_device_mode(words[2])
    ):
        raise UsageError(f"invalid device cgroup format '{text}'")
    return text


def read_gpus(text: str) -> DeviceRequest:
    """`all`, `2`, `device=0,1`, `"device=0,1",capabilities=utility`, `count=2,driver=nvidia`."""
    request: DeviceRequest = {"Driver": "", "Options": {}}
    capabilities: list[str] = []
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        if not equals:
            key, content = "count", field
        if key == "count":
            request["Count"] = _gpu_count(content)
        elif key == "device":
            request["DeviceIDs"] = content.split(",")
        elif key == "driver":
            request["Driver"] = content
        elif key == "capabilities":
            capabilities = content.split(",")
        elif key == "options":
            pairs = (pair.partition("=") for pair in split_csv(content))
            request["Options"] = {name: rest for name, _, rest in pairs}
        else:
            raise UsageError(f"unexpected key '{key}' in '{field}'")
    if "Count" in request and "DeviceIDs" in request:
        raise UsageError("cannot set both Count and DeviceIDs on device request")
    if "DeviceIDs" not in request:
        request.setdefault("Count", 1)
    request["Capabilities"] = [sorted({"gpu", *filter(None, capabilities)})]
    return request


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f'invalid count ({text}): value must be either "all" or an integer'
        ) from None
