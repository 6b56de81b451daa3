"""Go's `fmt`: how values print, and `printf`."""

from __future__ import annotations

import math
import re

from wherry.cli.template.documents import Struct
from wherry.human import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_DIRECTIVE = re.compile(
    r"%(?P<flags>[-+# 0]*)"
    r"(?:\[(?P<width_index>\d+)\](?=\*))?(?P<width>\d+|\*)?"
    r"(?P<point>\.(?:\[(?P<precision_index>\d+)\](?=\*))?(?P<precision>\d+|\*)?)?"
    r"(?:\[(?P<index>\d+)\])?(?P<verb>.)?",
    re.DOTALL,
)
_TOO_WIDE = 1_000_000
_BASES = {"b": 2, "o": 8, "O": 8, "d": 10, "v": 10, "x": 16, "X": 16}
_PREFIXES = {"b": "0b", "o": "0", "O": "0", "x": "0x", "X": "0X"}
_NOTHING = object()


def type_name(value: object) -> str:
    """The name of the Go type that `value` would have."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Struct():
            return "struct"
        case dict():
            return "map[string]interface {}"
        case list() | tuple():
            return "[]interface {}"
    return type(value).__name__


def show(value: object) -> str:
    """`value` as `%v` prints it."""
    return value if isinstance(value, str) else _Spec().format(value)


def sprint(values: Sequence[object]) -> str:
    """Go's Sprint: a space between two values if neither is a string."""
    pieces: list[str] = []
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            pieces.append(" ")
        pieces.append(show(value))
    return "".join(pieces)


def sprintln(values: Sequence[object]) -> str:
    return " ".join(show(value) for value in values) + "\n"


def sprintf(template: str, values: Sequence[object]) -> str:
    return _Printf(values).format(template)


class _Printf:
    """One call of printf: where it stands in its values."""

    def __init__(self, values: Sequence[object]) -> None:
        self.values = values
        self.position = 0
        self.reordered = False

    def format(self, template: str) -> str:
        text = _DIRECTIVE.sub(self.directive, template)
        rest = self.values[self.position :]
        if rest and not self.reordered:
            extra = ", ".join(
                "<nil>" if value is None else f"{type_name(value)}={show(value)}" for value in rest
            )
            text += f"%!(EXTRA {extra})"
        return text

    def directive(self, found: re.Match[str]) -> str:
        spec = _Spec(found["verb"] or "", found["flags"])
        if (wrong := self.sizes(spec, found)) is not None:
            return wrong
        if not spec.verb:
            return "%!(NOVERB)"
        if spec.verb == "%":
            return "%"
        if found["index"] and not self.move(found["index"]):
            return f"%!{spec.verb}(BADINDEX)"
        value = self.take()
        if value is _NOTHING:
            return f"%!{spec.verb}(MISSING)"
        return spec.format(value)

    def sizes(self, spec: _Spec, found: re.Match[str]) -> str | None:
        """Put width and precision into `spec`; the text to print instead if they are wrong."""
        wrong = ""
        if found["width"]:
            width = self.size(found["width"], found["width_index"])
            if width is None or abs(width) > _TOO_WIDE:
                wrong += "%!(BADWIDTH)"
            else:
                spec.minus = spec.minus or width < 0
                spec.width = abs(width)
        if found["point"]:
            precision = self.size(found["precision"] or "0", found["precision_index"])
            if precision is None or precision < 0 or precision > _TOO_WIDE:
                if found["precision"] != "*" or precision is None or precision > _TOO_WIDE:
                    wrong += "%!(BADPREC)"
            else:
                spec.precision = precision
        if not wrong:
            return None
        rest = _Spec(spec.verb).format(value) if (value := self.take()) is not _NOTHING else ""
        return wrong + rest

    def size(self, text: str, index: str | None) -> int | None:
        if text != "*":
            return int(text[:9])
        if index and not self.move(index):
            return None
        value = self.take()
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def move(self, index: str) -> bool:
        self.reordered = True
        position = int(index[:9]) - 1
        if not 0 <= position < len(self.values):
            return False
        self.position = position
        return True

    def take(self) -> object:
        if self.position >= len(self.values):
            return _NOTHING
        self.position += 1
        return self.values[self.position - 1]


class _Spec:
    """A verb with its flags: how one value is formatted."""

    def __init__(self, verb: str = "v", flags: str = "") -> None:
        self.verb = verb
        self.minus = "-" in flags
        # For %v a plus asks for the names of a struct's fields, and # for Go's syntax.
        self.plus = "+" in flags and verb != "v"
        self.field_names = "+" in flags and verb == "v"
        self.go_syntax = "#" in flags and verb == "v"
        self.sharp = "#" in flags and verb != "v"
        self.space = " " in flags
        self.zero = "0" in flags
        self.width = 0
        self.precision: int | None = None

    def format(self, value: Any, *, nested: bool = False) -> str:
        if self.verb == "T":
            return self.pad(type_name(value)[: self.precision])
        match value:
            case None:
                return self.nil(nested=nested)
            case bool():
                return self.boolean(value)
            case int():
                return self.integer(value)
            case float():
                return self.float(value)
            case str():
                return self.string(value)
            case dict():
                return self.mapping(value)
            case list() | tuple():
                return self.sequence(value)
        return self.string(str(value))

    def nil(self, *, nested: bool) -> str:
        if nested:
            return "interface {}(nil)" if self.go_syntax else "<nil>"
        return self.pad("<nil>") if self.verb == "v" else f"%!{self.verb}(<nil>)"

    def bad_verb(self, value: object) -> str:
        verb, self.verb = self.verb, "v"
        shown = f"%!{verb}({type_name(value)}={self.format(value)})"
        self.verb = verb
        return shown

    def pad(self, text: str, *, sign: str = "") -> str:
        """`text` at its width; zeros go between sign and text."""
        missing = self.width - len(sign) - len(text)
        if self.minus:
            return sign + text + " " * missing
        return sign + "0" * missing + text if self.zero else " " * missing + sign + text

    def boolean(self, value: bool) -> str:
        if self.verb not in "tv":
            return self.bad_verb(value)
        return self.pad("true" if value else "false")

    # Numbers

    def sign(self, *, negative: bool) -> str:
        if negative:
            return "-"
        return "+" if self.plus else " " if self.space else ""

    def integer(self, value: int) -> str:
        match self.verb:
            case "c":
                return self.pad(_character(value))
            case "q":
                return self.pad(quote(_character(value), "'", ascii_only=self.plus))
            case "U":
                shown = f"U+{value:04X}"
                if self.sharp and _character(value).isprintable():
                    shown += f" '{_character(value)}'"
                return self.pad(shown)
        base = _BASES.get(self.verb)
        if base is None:
            return self.bad_verb(value)
        digits = format(abs(value), {2: "b", 8: "o", 10: "d", 16: "x"}[base])
        if self.verb == "X":
            digits = digits.upper()
        if self.precision is not None:
            digits = "" if self.precision == value == 0 else digits.rjust(self.precision, "0")
        sign = self.sign(negative=value < 0)
        if self.zero and not self.minus and self.precision is None:
            digits = digits.rjust(self.width - len(sign), "0")
        if self.sharp and base != 10 and not (self.verb == "o" and digits.startswith("0")):
            digits = _PREFIXES[self.verb] + digits
        if self.verb == "O":
            digits = "0o" + digits
        return (
            (sign + digits).ljust(self.width) if self.minus else (sign + digits).rjust(self.width)
        )

    def float(self, value: float) -> str:
        verb = "g" if self.verb == "v" else self.verb
        if verb not in "eEfFgGxXb":
            return self.bad_verb(value)
        sign = self.sign(negative=str(value).startswith("-"))
        if value != value or value in (float("inf"), float("-inf")):
            self.zero = False
            return self.pad("NaN" if value != value else f"{sign or '+'}Inf")
        if verb in "xXb":
            digits = _binary_digits(value, verb, self.precision)
        elif verb in "gG" and self.precision is None and not self.sharp:
            digits = _shortest(abs(value))
            digits = digits.upper() if verb == "G" else digits
        else:
            precision = 6 if self.precision is None else self.precision
            digits = format(abs(value), f"{'#' if self.sharp else ''}.{precision}{verb}")
        return self.pad(digits, sign=sign)

    # Strings

    def string(self, value: str) -> str:
        if self.precision is not None and self.verb in "svq":
            value = value[: self.precision]
        match self.verb:
            case "v" if self.go_syntax:
                return self.pad(quote(value))
            case "s" | "v":
                return self.pad(value)
            case "q":
                if self.sharp and "`" not in value and value.isprintable():
                    return self.pad(f"`{value}`")
                return self.pad(quote(value, ascii_only=self.plus))
            case "x" | "X":
                return self.pad(self.hexadecimal(value.encode()))
        return self.bad_verb(value)

    def hexadecimal(self, content: bytes) -> str:
        if self.precision is not None:
            content = content[: self.precision]
        prefix = "0x" if self.sharp and content else ""
        digits = content.hex(" ") if self.space and content else content.hex()
        if prefix and self.space:
            digits = digits.replace(" ", f" {prefix}")
        text = prefix + digits
        return text.upper() if self.verb == "X" else text

    # Collections

    def sequence(self, items: Sequence[Any]) -> str:
        shown = [self.format(item, nested=True) for item in items]
        if self.go_syntax:
            return f"{type_name(items)}{{{', '.join(shown)}}}"
        return f"[{' '.join(shown)}]"

    def mapping(self, fields: dict[str, Any]) -> str:
        is_struct = isinstance(fields, Struct)
        names = list(fields) if is_struct else sorted(fields)
        values = [self.format(fields[name], nested=True) for name in names]
        if self.go_syntax:
            keys = names if is_struct else [quote(name) for name in names]
            pairs = ", ".join(f"{key}:{shown}" for key, shown in zip(keys, values, strict=True))
            return f"{type_name(fields)}{{{pairs}}}"
        if is_struct and not self.field_names:
            return f"{{{' '.join(values)}}}"
        keys = names if is_struct else [self.format(name) for name in names]
        pairs = " ".join(f"{key}:{shown}" for key, shown in zip(keys, values, strict=True))
        return f"{{{pairs}}}" if is_struct else f"map[{pairs}]"


def _shortest(value: float) -> str:
    """The shortest digits that mean `value`, as Go's `%g` writes them."""
    mantissa, _, exponent = f"{value!r}e".partition("e")
    exponent = exponent.rstrip("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    leading_zeros = len(whole + fraction) - len(digits)
    point = len(whole) - leading_zeros + int(exponent or 0)
    digits = digits.rstrip("0")
    if -4 <= point - 1 < 6:
        if point <= 0:
            return "0." + "0" * -point + digits
        if point >= len(digits):
            return digits + "0" * (point - len(digits))
        return f"{digits[:point]}.{digits[point:]}"
    power = point - 1
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _binary_digits(value: float, verb: str, precision: int | None) -> str:
    """`value` as a power of two and its factor: `0x1.8p+01`, or for %b `6755399441055744p-51`."""
    fraction, exponent = math.frexp(abs(value))
    factor = int(fraction * 2**53)
    if verb == "b":
        return f"{factor}p{exponent - 53 if factor else -1074:+d}"
    if precision is not None and precision < 13:
        unit = 1 << (52 - 4 * precision)
        factor = round(factor / unit) * unit
        if factor >= 2**53:
            factor, exponent = factor // 2, exponent + 1
    digits = f"{factor:014x}"
    rest = digits[1:].rstrip("0") if precision is None else digits[1:].ljust(precision, "0")
    rest = rest if precision is None else rest[:precision]
    point = "." if rest else ""
    text = f"0x{digits[0]}{point}{rest}p{exponent - 1 if factor else 0:+03d}"
    return text.upper() if verb == "X" else text


def _character(point: int) -> str:
    valid = 0 <= point <= 0x10FFFF and not 0xD800 <= point <= 0xDFFF
    return chr(point) if valid else "\ufffd"
