"""Carries a parsed template out over a value."""

from __future__ import annotations

from wherry.cli.template.documents import Struct
from wherry.cli.template.errors import execution_error
from wherry.cli.template.fmt import show, type_name
from wherry.cli.template.functions import CallError, is_true
from wherry.cli.template.nodes import (
    Action,
    Branch,
    Break,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Include,
    Literal,
    Name,
    Nil,
    Node,
    Pipe,
    Range,
    Text,
    Variable,
)
from wherry.harmless import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.cli.template.errors import TemplateError
    from wherry.cli.template.functions import Function
    from wherry.cli.template.parser import Body

_ABSENT: Any = object()  # no value at all, where None is a value that is there

_EXPECTED = {"s": "string", "i": "int"}


class _BreakLoop(Exception):
    pass


class _ContinueLoop(Exception):
    pass


def evaluate(
    name: str,
    text: str,
    templates: Mapping[str, Body],
    functions: Mapping[str, Function],
    data: object,
) -> str:
    """What the template `name` prints of `data`. Raises TemplateError."""
    evaluator = _Evaluator(name, text, templates, functions)
    try:
        evaluator.run(name, data)
    except RecursionError:
        raise evaluator.error(templates[name][0], "exceeded maximum template depth") from None
    return "".join(evaluator.output)


class _Evaluator:
    def __init__(
        self,
        name: str,
        text: str,
        templates: Mapping[str, Body],
        functions: Mapping[str, Function],
    ) -> None:
        self.name = name
        self.text = text
        self.templates = templates
        self.functions = functions
        self.output: list[str] = []
        self.running = name
        self.variables: list[tuple[str, Any]] = []

    def error(self, node: Node, reason: str, hint: str | None = None) -> TemplateError:
        return execution_error(
            self.name, self.running, self.text, node.offset, node.source, reason, hint
        )

    def run(self, name: str, data: object) -> None:
        """Print the template `name`, in which no variable of another one is known."""
        outer = self.running, self.variables
        self.running, self.variables = name, [("$", data)]
        self.walk(data, self.templates[name])
        self.running, self.variables = outer

    # Nodes that print

    def walk(self, dot: Any, nodes: Iterable[Node]) -> None:
        for node in nodes:
            match node:
                case Text():
                    self.output.append(node.text)
                case Action():
                    value = self.pipe(dot, node.pipe)
                    if not node.pipe.variables:
                        self.output.append("<no value>" if value is None else shown(show(value)))
                case Branch():
                    self.branch(dot, node)
                case Range():
                    self.range(dot, node)
                case Include():
                    self.include(dot, node)
                case Break():
                    raise _BreakLoop
                case Continue():
                    raise _ContinueLoop

    def branch(self, dot: Any, node: Branch) -> None:
        known = len(self.variables)
        value = self.pipe(dot, node.pipe)
        if is_true(value):
            self.walk(value if node.rebinds_dot else dot, node.body)
        else:
            self.walk(dot, node.otherwise)
        del self.variables[known:]

    def range(self, dot: Any, node: Range) -> None:
        known = len(self.variables)
        items = self.items(node, self.value(dot, node.pipe))
        inside = len(self.variables)
        is_empty = True
        for index, item in items:
            is_empty = False
            self.bind(node.pipe, index, item)
            try:
                self.walk(item, node.body)
            except _BreakLoop:
                break
            except _ContinueLoop:
                continue
            finally:
                del self.variables[inside:]
        if is_empty:
            self.walk(dot, node.otherwise)
        del self.variables[known:]

    def items(self, node: Range, value: Any) -> Iterable[tuple[Any, Any]]:
        """What a range goes through: each item with its index or key."""
        match value:
            case None:
                return []
            case dict() if not isinstance(value, Struct):
                return sorted(value.items(), key=lambda pair: pair[0])
            case list() | tuple():
                return enumerate(value)
            case int() if not isinstance(value, bool):
                if len(node.pipe.variables) > 1:
                    raise self.error(
                        node.pipe, f"can't use {value} to iterate over more than one variable"
                    )
                return enumerate(range(value))
        raise self.error(node.pipe, f"range can't iterate over {show(value)}")

    def bind(self, pipe: Pipe, index: Any, item: Any) -> None:
        """Give a range's variables their values for one round."""
        if not pipe.variables:
            return
        values = (item,) if len(pipe.variables) == 1 else (index, item)
        for name, value in zip(pipe.variables, values, strict=True):
            self.set(name, value, declares=pipe.declares)

    def include(self, dot: Any, node: Include) -> None:
        data = self.pipe(dot, node.pipe) if node.pipe else None
        if node.name not in self.templates:
            raise self.error(node, f'template "{node.name}" not defined')
        self.run(node.name, data)

    # Variables

    def set(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self.variables.append((name, value))
            return
        for position in range(len(self.variables) - 1, -1, -1):
            if self.variables[position][0] == name:
                self.variables[position] = (name, value)
                return

    def get(self, node: Variable) -> Any:
        for name, value in reversed(self.variables):
            if name == node.variable:
                return value
        raise self.error(node, f"undefined variable: {node.variable}")

    # Pipelines

    def pipe(self, dot: Any, pipe: Pipe) -> Any:
        value = self.value(dot, pipe)
        for name in pipe.variables:
            self.set(name, value, declares=pipe.declares)
        return value

    def value(self, dot: Any, pipe: Pipe) -> Any:
        value: Any = _ABSENT
        for command in pipe.commands:
            value = _present(self.command(dot, command, value))
        return value

    def command(self, dot: Any, command: Command, final: Any) -> Any:
        """The value of a command; `final` is the value that is piped into it, if any."""
        first, *arguments = command.operands
        match first:
            case Name():
                return self.function(dot, first, command, arguments, final)
            case Field() | Chain() | Variable():
                return self.fields(dot, first, arguments, final)
        if arguments or final is not _ABSENT:
            raise self.error(first, f"can't give argument to non-function {first.source}")
        if isinstance(first, Nil):
            raise self.error(first, "nil is not a command")
        return self.operand(dot, first)

    def operand(self, dot: Any, node: Node) -> Any:
        match node:
            case Dot():
                return dot
            case Literal():
                return node.constant
            case Pipe():
                return self.pipe(dot, node)
            case Name():
                return self.function(dot, node, node, [], _ABSENT)
            case Field() | Chain() | Variable():
                return self.fields(dot, node, [], _ABSENT)
        return None

    # Fields

    def fields(
        self, dot: Any, node: Field | Chain | Variable, arguments: list[Node], final: Any
    ) -> Any:
        """The value of `.A.B`, `$x.A.B` or `(…).A.B`; arguments are those of the last one."""
        match node:
            case Variable():
                receiver = self.get(node)
            case Chain():
                receiver = self.operand(dot, node.operand)
            case _:
                receiver = dot
        if not node.names:
            if arguments or final is not _ABSENT:
                raise self.error(node, f"can't give argument to non-function {node.source}")
            return receiver
        if receiver is None:
            receiver = _ABSENT
        for name in node.names[:-1]:
            receiver = self.field(node, receiver, name, [])
        values = [_present(self.operand(dot, argument)) for argument in arguments]
        if final is not _ABSENT:
            values.append(final)
        return self.field(node, receiver, node.names[-1], values)

    def field(self, node: Node, receiver: Any, name: str, arguments: list[Any]) -> Any:
        if receiver is _ABSENT:
            return _ABSENT
        if receiver is None:
            raise self.error(node, f"nil pointer evaluating interface {{}}.{name}")
        value = self.member(node, receiver, name)
        if callable(value):
            self.check_method(node, name, value, arguments)
            return self.call(node, name, value, arguments)
        if arguments:
            raise self.error(node, f"{name} is not a method but has arguments")
        return value

    def check_method(self, node: Node, name: str, method: Any, arguments: list[Any]) -> None:
        import inspect

        signature = inspect.signature(method)
        try:
            signature.bind(*arguments)
        except TypeError:
            reason = (
                f"wrong number of args for {name}: "
                f"want {len(signature.parameters)} got {len(arguments)}"
            )
            raise self.error(node, reason) from None

    def member(self, node: Node, receiver: Any, name: str) -> Any:
        hint = None
        if isinstance(receiver, dict):
            if name in receiver:
                return receiver[name]
            if not isinstance(receiver, Struct):
                return _ABSENT
            try:
                return receiver.lacking(name)
            except KeyError:
                hint = f"there are {', '.join(sorted(receiver))}"
        elif not isinstance(receiver, str | int | float | list | tuple) and name[0] != "_":
            value = getattr(receiver, name, _ABSENT)
            if value is not _ABSENT:
                return value
        reason = f"can't evaluate field {name} in type {type_name(receiver)}"
        raise self.error(node, reason, hint)

    # Functions

    def function(self, dot: Any, node: Name, place: Node, arguments: list[Node], final: Any) -> Any:
        name = node.source
        function = self.functions[name]
        try:
            function.check_count(name, len(arguments) + (final is not _ABSENT))
        except CallError as error:
            raise self.error(node, str(error)) from error
        if name in ("and", "or"):
            return self.first_that_decides(dot, arguments, final, wanted=name == "or")
        values = [_present(self.operand(dot, argument)) for argument in arguments]
        if final is not _ABSENT:
            values.append(final)
        # What is piped in comes last, and has no place of its own.
        for kind, value, argument in zip(
            function.parameters.rstrip("*"), values, [*arguments, place], strict=False
        ):
            self.check_type(argument, kind, value)
        return self.call(place, name, function.call, values)

    def first_that_decides(
        self, dot: Any, arguments: list[Node], final: Any, *, wanted: bool
    ) -> Any:
        """`or` is its first true argument, `and` its first false one, or else their last."""
        value: Any = None
        for argument in arguments:
            value = _present(self.operand(dot, argument))
            if is_true(value) == wanted:
                return value
        return value if final is _ABSENT else final

    def check_type(self, place: Node, kind: str, value: Any) -> None:
        expected = _EXPECTED.get(kind)
        if expected is None or type_name(value) == expected:
            return
        if value is None:
            raise self.error(place, f"invalid value; expected {expected}")
        raise self.error(
            place, f"wrong type for value; expected {expected}; got {type_name(value)}"
        )

    def call(self, place: Node, name: str, function: Any, arguments: list[Any]) -> Any:
        try:
            return function(*arguments)
        except CallError as error:
            raise self.error(place, f"error calling {name}: {error}") from error


def _present(value: Any) -> Any:
    return None if value is _ABSENT else value
