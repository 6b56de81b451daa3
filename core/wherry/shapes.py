"""What JSON on the disk has to look like, so that nothing that reads it trips over the rest.

A shape is a type or several; a list of one shape, for a list; or an object's keys, each with
a shape, where "*" stands for all others. A key that ends with "!" has to be there, and one
that is not named may be anything. Where a key may be missing, so may its value (`null`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEXTS = {"*": str}
"""An object whose values are strings."""


def fits(value: Any, shape: Any) -> bool:
    """Whether `value` has this shape."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and _fits_object(value, shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    return isinstance(value, shape)


def _fits_object(value: dict[str, Any], shape: dict[str, Any]) -> bool:
    others = shape.get("*")
    for key, content in value.items():
        wanted = shape.get(key, others)
        if wanted is not None and content is not None and not fits(content, wanted):
            return False
    for key, wanted in shape.items():
        if key[-1] == "!" and not fits(value.get(key[:-1]), wanted):
            return False
    return True
