"""Reads pipelines: what is written inside an action."""

from __future__ import annotations

from wherry.cli.template import literals
from wherry.cli.template.errors import TemplateError, parsing_error
from wherry.cli.template.lexer import KEYWORDS, Token, tokens
from wherry.cli.template.nodes import (
    Chain,
    Command,
    Dot,
    Field,
    Literal,
    Name,
    Nil,
    Node,
    Pipe,
    Variable,
)
from wherry.human import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

_OPERANDS = frozenset(
    ("name", "dot", "nil", "variable", "field", "(", "number", "char", "string", "raw")
)


class PipelineParser:
    """Where a parser stands in its tokens, and the variables that it knows there."""

    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self.name = name
        self.text = text
        self.functions = functions
        self.tokens = tokens(name, text)
        self.held: list[Token] = []
        self.last_end = 0
        self.variables = ["$"]

    # Tokens

    def next(self) -> Token:
        token = self.held.pop() if self.held else next(self.tokens)
        self.last_end = token.end
        return token

    def peek(self) -> Token:
        if not self.held:
            self.held.append(next(self.tokens))
        return self.held[-1]

    def next_word(self) -> Token:
        """The next token that is not space."""
        token = self.next()
        return self.next() if token.kind == "space" else token

    def peek_word(self) -> Token:
        if self.peek().kind == "space":
            self.next()
        return self.peek()

    def expect(self, kind: str, context: str) -> Token:
        token = self.next_word()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    def error(self, reason: str, token: Token | None = None) -> TemplateError:
        offset = token.offset if token else self.last_end
        return parsing_error(self.name, self.text, offset, reason)

    def unexpected(self, token: Token, context: str) -> TemplateError:
        return self.error(f"unexpected {_describe(token)} in {context}", token)

    def source(self, start: int) -> str:
        return " ".join(self.text[start : self.last_end].split())

    def string(self, context: str) -> str:
        token = self.next_word()
        if token.kind not in ("string", "raw"):
            raise self.unexpected(token, context)
        return str(self.constant(token))

    # Pipelines

    def pipe(self, context: str, end: str) -> Pipe:
        """A pipeline up to a token of the kind `end`."""
        start = self.peek_word().offset
        names, declares = self.declarations(context)
        commands: list[Command] = []
        while True:
            token = self.next_word()
            if token.kind == end:
                break
            if token.kind not in _OPERANDS:
                raise self.unexpected(token, context)
            self.held.append(token)
            commands.append(self.command())
        self.check(commands, context, token)
        source = " ".join(self.text[start : token.offset].split())
        return Pipe(
            offset=start,
            source=source,
            variables=names,
            declares=declares,
            commands=tuple(commands),
        )

    def declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =`, or in a range `$i, $x :=` at the beginning of a pipeline."""
        first = self.peek_word()
        if first.kind != "variable":
            return (), False
        self.next()
        after = self.next()
        space = after if after.kind == "space" else None
        if space:
            after = self.next()
        names = [first.text]
        if after.kind == "," and context == "range":
            second = self.next_word()
            if second.kind != "variable":
                raise self.unexpected(second, context)
            names.append(second.text)
            after = self.next_word()
            if after.kind not in ("declare", "="):
                raise self.error("range can only initialize variables", second)
        elif after.kind == ",":
            raise self.error(f"too many declarations in {context}", after)
        if after.kind in ("declare", "="):
            if after.kind == "declare":
                self.variables += names
            else:
                for name in names:
                    self.know(name, first)
            return tuple(names), after.kind == "declare"
        self.held += [token for token in (after, space, first) if token]
        return (), False

    def check(self, commands: list[Command], context: str, end: Token) -> None:
        if not commands:
            raise self.error(f"missing value for {context}", end)
        for stage, command in enumerate(commands[1:], start=2):
            operand = command.operands[0]
            if isinstance(operand, Literal | Dot | Nil):
                raise self.error(
                    f"non executable command in pipeline stage {stage}",
                    Token(kind="", text="", offset=operand.offset),
                )

    def command(self) -> Command:
        """A command, up to and with the `|` behind it, or up to what ends the pipeline."""
        start = self.peek_word().offset
        operands: list[Node] = []
        while True:
            if self.peek_word().kind in _OPERANDS:
                operands.append(self.operand())
            end = self.last_end
            token = self.next()
            if token.kind == "space":
                continue
            if token.kind in ("close", ")"):
                self.held.append(token)
            elif token.kind != "|":
                raise self.unexpected(token, "operand")
            break
        if not operands:
            raise self.error("empty command", token)
        source = " ".join(self.text[start:end].split())
        return Command(offset=start, source=source, operands=tuple(operands))

    def operand(self) -> Node:
        """A term, with the fields that follow it without a space."""
        start = self.peek_word().offset
        node = self.term()
        offset = self.peek().offset
        names = self.fields()
        if not names:
            return node
        source = self.source(start)
        if isinstance(node, Field):
            return Field(offset=offset, source=source, names=node.names + names)
        if isinstance(node, Variable):
            return Variable(
                offset=offset,
                source=source,
                variable=node.variable,
                names=node.names + names,
            )
        if isinstance(node, Literal | Nil | Dot):
            raise self.error(f"unexpected . after term {quote(node.source)}")
        return Chain(offset=offset, source=source, operand=node, names=names)

    def fields(self) -> tuple[str, ...]:
        names: list[str] = []
        while self.peek().kind == "field":
            names.append(self.next().text[1:])
        return tuple(names)

    def term(self) -> Node:
        token = self.next_word()
        offset, text = token.offset, token.text
        match token.kind:
            case "name" if text in ("true", "false"):
                return Literal(offset=offset, source=text, constant=text == "true")
            case "name":
                if text not in self.functions:
                    raise self.error(f'function "{text}" not defined', token)
                return Name(offset=offset, source=text)
            case "dot":
                return Dot(offset=offset, source=text)
            case "nil":
                return Nil(offset=offset, source=text)
            case "variable":
                self.know(text, token)
                return Variable(offset=offset, source=text, variable=text, names=())
            case "field":
                return Field(offset=offset, source=text, names=(text[1:],))
            case "(":
                return self.pipe("parenthesized pipeline", ")")
        return Literal(offset=offset, source=text, constant=self.constant(token))

    def know(self, name: str, token: Token) -> None:
        if name not in self.variables:
            raise self.error(f'undefined variable "{name}"', token)

    def constant(self, token: Token) -> int | float | str:
        try:
            match token.kind:
                case "number":
                    return literals.number(token.text)
                case "char":
                    return literals.character(token.text)
            return literals.unquote(token.text)
        except ValueError as error:
            raise self.error(str(error), token) from error


def _describe(token: Token) -> str:
    if token.kind == "eof":
        return "EOF"
    if token.kind == "close":
        return '"}}"'
    if token.kind in KEYWORDS or token.kind == "dot":
        return f"<{token.text}>"
    return quote(token.text)
