"""A parsed template as a tree. Every node knows the text that it was read from."""

from __future__ import annotations

from wherry.values import value


@value
class Node:
    offset: int
    source: str


# What is written between actions, and the actions.


@value
class Text(Node):
    offset: int
    source: str
    text: str


@value
class Action(Node):
    """`{{pipe}}`: prints a value, or sets a variable."""

    offset: int
    source: str
    pipe: Pipe


@value
class Branch(Node):
    """`if` and `with`: what is done with a value, or without one."""

    offset: int
    source: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    rebinds_dot: bool


@value
class Range(Node):
    offset: int
    source: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@value
class Include(Node):
    """`{{template "name" pipe}}`, and the place of a `{{block}}`."""

    offset: int
    source: str
    name: str
    pipe: Pipe | None


@value
class Break(Node):
    offset: int
    source: str


@value
class Continue(Node):
    offset: int
    source: str


# What is written inside an action.


@value
class Pipe(Node):
    """`$a, $b := command | command`: each command gets the value before it as last argument."""

    offset: int
    source: str
    variables: tuple[str, ...]
    declares: bool
    commands: tuple[Command, ...]


@value
class Command(Node):
    offset: int
    source: str
    operands: tuple[Node, ...]


@value
class Field(Node):
    """`.A.B`"""

    offset: int
    source: str
    names: tuple[str, ...]


@value
class Variable(Node):
    """`$x.A.B`"""

    offset: int
    source: str
    variable: str
    names: tuple[str, ...]


@value
class Chain(Node):
    """`(operand).A.B`"""

    offset: int
    source: str
    operand: Node
    names: tuple[str, ...]


@value
class Name(Node):
    """A function's name."""

    offset: int
    source: str


@value
class Dot(Node):
    offset: int
    source: str


@value
class Nil(Node):
    offset: int
    source: str


@value
class Literal(Node):
    offset: int
    source: str
    constant: bool | int | float | str
