"""What `system df` prints, of the document that the API's /system/df has."""

from __future__ import annotations

import sys

from wherry.cli.tables import Table, format_rows, label_fields, print_rows, short_id
from wherry.human import SECOND, human_size
from wherry.times import ago, parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Usage = Mapping[str, Any]

_SUMMARY = Table(
    columns=("Type", "TotalCount", "Active", "Size", "Reclaimable"),
    titles={"TotalCount": "TOTAL"},
)


def print_summary(usage: Usage, template: str = "") -> None:
    """One row for each kind of object."""
    print_rows(summary_rows(usage), _SUMMARY, template=template)


def summary_rows(usage: Usage) -> list[dict[str, Any]]:
    """How many there are, how many are in use, and what removing the others gives back."""
    images, containers = usage["Images"] or (), usage["Containers"] or ()
    volumes, caches = usage["Volumes"] or (), usage["BuildCache"] or ()
    used_images = [each for each in images if each["Containers"]]
    # What an image shares with others stays when it alone goes.
    kept = sum(each["Size"] - each["SharedSize"] for each in used_images)
    shared = max((each["SharedSize"] for each in used_images), default=0)
    running = [each for each in containers if each["State"] in ("running", "paused", "restarting")]
    used_volumes = [each for each in volumes if each["UsageData"]["RefCount"]]
    return [
        _row("Images", len(images), len(used_images), usage["LayersSize"],
             max(usage["LayersSize"] - kept - shared, 0)),
        _row("Containers", len(containers), len(running), _sum(containers, "SizeRw"),
             _sum(containers, "SizeRw") - _sum(running, "SizeRw")),
        _row("Local Volumes", len(volumes), len(used_volumes), _volumes_size(volumes),
             _volumes_size(volumes) - _volumes_size(used_volumes)),
        _row("Build Cache", len(caches), len([each for each in caches if each["InUse"]]),
             _caches_size(caches), _caches_size(caches)),
    ]  # fmt: skip


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    shown = human_size(reclaimable)
    if size and kind != "Build Cache":
        shown += f" ({100 * reclaimable // size}%)"
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": shown,
    }


def _sum(objects: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(each.get(key) or 0 for each in objects)


def _volumes_size(volumes: Sequence[Mapping[str, Any]]) -> int:
    return sum(max(each["UsageData"]["Size"], 0) for each in volumes)


def _caches_size(caches: Sequence[Mapping[str, Any]]) -> int:
    """What removing them gives back: what an image has is counted there."""
    return sum(each["Size"] for each in caches if not each["Shared"])


def print_details(usage: Usage, template: str = "") -> None:
    """Every image, container, volume and step of a build with its size."""
    tables = {
        "Images": (_image_rows(usage), _IMAGES),
        "Containers": (_container_rows(usage), _CONTAINERS),
        "Volumes": (_volume_rows(usage), _VOLUMES),
        "BuildCache": (_cache_rows(usage), _CACHES),
    }
    if template:
        from wherry.cli.template import parse_template, typed

        parsed = parse_template("{{json .}}" if template == "json" else template)
        document = {name: rows for name, (rows, _) in tables.items()}
        print(parsed.render(typed(document)))
        return
    size = human_size(_caches_size(usage["BuildCache"] or ()))
    titles = ("Images space usage:", "Containers space usage:", "Local Volumes space usage:",
              f"Build cache usage: {size}")  # fmt: skip
    for title, (rows, table) in zip(titles, tables.values(), strict=True):
        sys.stdout.write(f"{title}\n\n{format_rows(rows, table)}\n")


_IMAGES = Table(
    columns=("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize",
             "Containers"),
    titles={"ID": "IMAGE ID", "CreatedSince": "CREATED", "SharedSize": "SHARED SIZE",
            "UniqueSize": "UNIQUE SIZE"},
)  # fmt: skip
_CONTAINERS = Table(
    columns=("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
    titles={"ID": "CONTAINER ID", "LocalVolumes": "LOCAL VOLUMES", "RunningFor": "CREATED"},
)
_CACHES = Table(
    columns=("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "Shared"),
    titles={"ID": "CACHE ID", "CacheType": "CACHE TYPE", "CreatedSince": "CREATED",
            "LastUsedSince": "LAST USED"},
)  # fmt: skip
_VOLUMES = Table(columns=("Name", "Links", "Size"), titles={"Name": "VOLUME NAME"}, quiet="Name")


def _image_rows(usage: Usage) -> list[dict[str, Any]]:
    rows = []
    for each in usage["Images"] or ():
        for tag in each["RepoTags"] or ["<none>:<none>"]:
            repository, _, name = tag.rpartition(":")
            rows.append(
                {
                    "Repository": repository,
                    "Tag": name,
                    "ID": short_id(each["Id"]),
                    "CreatedSince": ago(each["Created"] * SECOND),
                    "Size": human_size(each["Size"], 3),
                    "SharedSize": human_size(each["SharedSize"], 3),
                    "UniqueSize": human_size(each["Size"] - each["SharedSize"], 3),
                    "Containers": str(each["Containers"]),
                }
            )
    return rows


def _container_rows(usage: Usage) -> list[dict[str, Any]]:
    from wherry.cli.ps import row_of

    rows = [row_of(each) for each in usage["Containers"] or ()]
    for row, each in zip(rows, usage["Containers"] or (), strict=True):
        row["Size"] = human_size(each.get("SizeRw") or 0, 3)
    return rows


def _volume_rows(usage: Usage) -> list[dict[str, Any]]:
    return [
        {
            "Name": each["Name"],
            "Links": str(each["UsageData"]["RefCount"]),
            "Size": human_size(max(each["UsageData"]["Size"], 0), 3),
            "Driver": each["Driver"],
            "Mountpoint": each["Mountpoint"],
            "CreatedAt": ago(parse_time(each["CreatedAt"])),
            **label_fields(each["Labels"]),
        }
        for each in usage["Volumes"] or ()
    ]


def _cache_rows(usage: Usage) -> list[dict[str, Any]]:
    return [
        {
            "ID": short_id(each["ID"]),
            "CacheType": each["Type"],
            "Size": human_size(each["Size"], 3),
            "CreatedSince": ago(parse_time(each["CreatedAt"])) if each["CreatedAt"] else "N/A",
            "LastUsedSince": ago(parse_time(each["LastUsedAt"])),
            "Shared": str(each["Shared"]).lower(),
            "Description": each["Description"],
        }
        for each in usage["BuildCache"] or ()
    ]
