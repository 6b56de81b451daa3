"""JSON as Go's encoder writes it: maps sorted, structs as they are, no HTML escapes."""

from __future__ import annotations

from wherry.cli.template.documents import Row, Slice, StringMap, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    # Legal in JSON, not in the JavaScript of old.
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPES.update({chr(code): f"\\u{code:04x}" for code in range(0x20) if chr(code) not in _ESCAPES})
_TABLE = str.maketrans(_ESCAPES)


def encode(value: Any) -> str:
    """`value` as compact JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return f'"{value.translate(_TABLE)}"'
        case StringMap() | Slice() if value.null:
            return "null"
        case Row():
            return encode(value.plain())
        case dict():
            names = value if isinstance(value, Struct) else sorted(value)
            pairs = (f"{encode(name)}:{encode(value[name])}" for name in names)
            return f"{{{','.join(pairs)}}}"
        case list() | tuple():
            return f"[{','.join(map(encode, value))}]"
    return encode(str(value))


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"json: unsupported value: {value}")
    if value == int(value) and abs(value) < 1e21:
        return str(int(value)) if value or str(value)[0] != "-" else "-0"
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text
    if -6 <= int(power) < 0:
        return f"{value:.{len(mantissa.replace('.', '').lstrip('-')) - 1 - int(power)}f}"
    sign = "-" if power.startswith("-") else "+"
    return f"{mantissa.removesuffix('.0')}e{sign}{power.lstrip('+-').lstrip('0')}"
