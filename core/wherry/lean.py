"""The C halves of `json`, `socket`, `signal` and `hashlib`: what start-up can afford.

`import json` and `import socket` cost 8 ms each (they bring `re`, `enum` and
`selectors`), more than half of the interpreter's own start, and keep a megabyte in
every monitor; `import hashlib` loads OpenSSL, 4 ms. The extension modules underneath
do the work; this file is the only one that names them. Where an interpreter lacks one,
the public module serves.
"""

from __future__ import annotations

import sys  # noqa: TC003

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
    from typing import Any

    if sys.platform == "linux":
        import os as posix
        import select
        import signal as signals
        import socket as sockets
    else:
        # Modules of core that run on Linux alone are read by the type checker on all systems.
        posix: Any
        select: Any
        signals: Any
        sockets: Any
else:
    import os as posix
    import select

    try:
        import _signal as signals
        import _socket as sockets
    except ImportError:
        import signal as signals
        import socket as sockets

    try:  # 3.12 and later
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = [
    "dump_json",
    "load_json",
    "posix",
    "quote_json",
    "select",
    "sha256",
    "signals",
    "sockets",
]


def _not_serializable(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    class _Context:
        """What the scanner asks of a `json.JSONDecoder`."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        array_hook = None
        parse_float = float
        parse_int = int
        memo: dict[str, str] = {}  # noqa: RUF012

        @staticmethod
        def parse_constant(name: str) -> float:
            raise ValueError(f"{name} is not JSON")

    _scan = make_scanner(_Context())  # type: ignore[arg-type]
    _encode = make_encoder(
        None, _not_serializable, encode_basestring_ascii, None, ":", ",", False, False, False
    )

    def load_json(text: str | bytes) -> Any:
        """The value that a JSON text holds. Raises ValueError."""
        if not isinstance(text, str):
            text = text.decode()
        start = len(text) - len(text.lstrip(" \t\n\r"))
        try:
            value, end = _scan(text, start)
        except (StopIteration, SystemError, ValueError):
            end = -1
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if end < 0 or text[end:].strip(" \t\n\r"):
            # The scanner finds its exception in `json.decoder`, which is not loaded.
            import json

            json.loads(text)
            raise ValueError("not JSON")
        return value

    def dump_json(value: Any) -> str:
        """`value` as compact JSON."""
        return "".join(_encode(value, 0))

    # A text as JSON: what `dump_json` makes of it, in half the time.
    quote_json = encode_basestring_ascii

except ImportError:  # another interpreter than CPython
    import json

    load_json = json.loads  # type: ignore[assignment]

    def dump_json(value: Any) -> str:
        """`value` as compact JSON."""
        return json.dumps(value, separators=(",", ":"))

    quote_json = json.encoder.encode_basestring_ascii
