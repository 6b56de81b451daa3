"""What can go wrong, as one tree.

    WherryError               could not be done; the CLI prints it, in one place
    ├── UsageError            what was asked makes no sense              HTTP 400
    ├── NotFound              no such container, image, volume, …        HTTP 404
    ├── Conflict              a name in use, a state that forbids it     HTTP 409
    ├── AccessDenied          a registry or the kernel says no           HTTP 403
    ├── Unsupported           this system or kernel cannot               HTTP 501
    ├── CorruptState          a record, blob or archive is damaged
    ├── RegistryError         a registry answered with an error, or not at all
    ├── KernelError           a system call failed (carries errno)
    │   └── NoUserNamespace   the kernel makes no user namespace, or not this one
    ├── MachineError          the VM did not do what it should
    ├── CommandNotExecutable  the container's command cannot be executed (126)
    └── CommandNotFound       the container's command does not exist     (127)

The class says which exit code and HTTP status follow. The message says what could
not be done, to what, and why; the hint says what to try.
"""

from __future__ import annotations


class WherryError(Exception):
    """Something could not be done.

    `exit_code` is None where the command decides: docker's `run` fails with 125, its
    other commands with 1.
    """

    exit_code: int | None = None
    http_status = 500

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(WherryError):
    http_status = 400


class NotFound(WherryError):
    http_status = 404


class Conflict(WherryError):
    http_status = 409


class AccessDenied(WherryError):
    http_status = 403


class Unsupported(WherryError):
    http_status = 501


class CorruptState(WherryError):
    pass


class RegistryError(WherryError):
    pass


class KernelError(WherryError):
    """A system call failed; `errno` is the kernel's number, 0 where it gave none."""

    def __init__(self, message: str, errno: int = 0, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class NoUserNamespace(KernelError):
    """Root's containers run without one, where they have not asked for more."""


class MachineError(WherryError):
    pass


class CommandNotExecutable(WherryError):
    exit_code = 126
    http_status = 400


class CommandNotFound(WherryError):
    exit_code = 127
    http_status = 400


def as_ours(error: BaseException) -> WherryError:
    """`error`, or one of ours that says the same, for whoever asked."""
    if isinstance(error, WherryError):
        return error
    if isinstance(error, OSError) and error.strerror:
        at = "" if error.filename is None else f": {error.filename}"
        return WherryError(f"{error.strerror}{at}")
    if isinstance(error, MemoryError):
        return WherryError("out of memory")
    if isinstance(error, RecursionError):
        return WherryError("directories are nested too deeply")
    return WherryError(f"{type(error).__name__}: {error}")


def reason_of(error: BaseException) -> str:
    """Why something could not be fetched, in words: URLError has the system's error within."""
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner)


def to_json(error: WherryError) -> dict[str, object]:
    """`error` as JSON, to cross from a forked child to its parent."""
    return {
        "class": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "errno": getattr(error, "errno", 0),
    }


def from_json(fields: dict[str, object]) -> WherryError:
    """The error that `to_json` wrote; the base class where the name is not of this tree."""
    cls = globals().get(str(fields["class"]))
    if not (isinstance(cls, type) and issubclass(cls, WherryError)):
        cls = WherryError
    hint = fields["hint"]
    error = cls(str(fields["message"]), hint=None if hint is None else str(hint))
    if isinstance(error, KernelError):
        error.errno = int(str(fields["errno"]))
    assert isinstance(error, WherryError)
    return error
