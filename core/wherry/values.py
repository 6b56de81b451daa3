"""Frozen, keyword-only values: what `dataclasses` offers, without its start-up cost.

`import dataclasses` takes as long as the interpreter's own start (it imports
`inspect`), and `wherry run` is typed often. `@value` is for the modules that such
a command imports; type checkers see an ordinary frozen dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True)
    def value(cls: type[T]) -> type[T]: ...

    def replace(instance: T, **changes: Any) -> T: ...

else:

    def value(cls):
        """Make `cls` a frozen, keyword-only value of its annotated fields."""
        fields = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
        cls.__fields__ = fields
        required = frozenset(fields) - defaults.keys()

        def __init__(self, **given):  # noqa: N807
            missing = required - given.keys()
            unknown = given.keys() - set(fields)
            if missing or unknown:
                wrong = f"missing {sorted(missing)}" if missing else f"unknown {sorted(unknown)}"
                raise TypeError(f"{cls.__name__}: {wrong}")
            self.__dict__.update(defaults)
            self.__dict__.update(given)

        cls.__init__ = __init__
        cls.__setattr__ = cls.__delattr__ = _refuse
        cls.__eq__ = _equal
        cls.__hash__ = lambda self: hash(tuple(self.__dict__[name] for name in fields))
        cls.__repr__ = _represent
        return cls

    def replace(instance, **changes):
        """A copy of `instance` with some fields changed."""
        return type(instance)(**{**instance.__dict__, **changes})

    def _refuse(self, *_):
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _equal(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def _represent(self):
        fields = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.__fields__)
        return f"{type(self).__name__}({fields})"
