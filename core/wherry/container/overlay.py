"""overlayfs as an entry of runtime-spec's `mounts`.

Always with `userxattr`: layers are unpacked with marks that root and others can read.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.oci.runtime_spec import Mount


def overlay_mount(
    destination: str,
    lower: Sequence[str],
    *,
    upper: str = "",
    work: str = "",
    options: Sequence[str] = (),
) -> Mount:
    """The mount of `lower` (the topmost first), writable with `upper` and `work`."""
    data = [f"lowerdir={':'.join(escape(path) for path in lower)}"]
    if upper:
        data += [f"upperdir={escape(upper)}", f"workdir={escape(work)}"]
    return {
        "destination": destination,
        "type": "overlay",
        "source": "overlay",
        "options": [*data, "userxattr", *options],
    }


def escape(path: str) -> str:
    """A path within an option of overlayfs, where commas and colons separate."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
