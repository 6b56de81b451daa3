"""Reads a template's tokens into a tree, by recursive descent."""

from __future__ import annotations

from wherry.cli.template import literals
from wherry.cli.template.errors import TemplateError, parsing_error
from wherry.cli.template.lexer import KEYWORDS, Token, tokens
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
from wherry.human import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

Body = tuple[Node, ...]


def parse(name: str, text: str, functions: Container[str]) -> dict[str, Body]:
    """The templates that `text` defines; its own body is the one called `name`.

    Raises TemplateError.
    """
    return _Parser(name, text, functions).parse()


class _Parser:
    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self.name = name
        self.text = text
        self.functions = functions
        self.tokens = tokens(name, text)
        self.held: list[Token] = []
        self.last_end = 0
        self.variables = ["$"]
        self.range_depth = 0
        self.defined: dict[str, Body] = {}

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

    # Templates and lists of nodes

    def parse(self) -> dict[str, Body]:
        body: list[Node] = []
        while (token := self.next()).kind != "end":
            if token.kind == "text":
                body.append(_text(token))
            elif self.peek_word().kind == "define":
                self.next()
                self.define()
            else:
                node = self.action()
                if isinstance(node, Token):
                    raise self.error(f"unexpected {{{{{node.text}}}}}", node)
                body.append(node)
        # A text that only defines templates leaves one that is already there alone.
        return {self.name: tuple(body), **self.defined}

    def define(self) -> None:
        name = self.string("define clause")
        self.expect("close", "define clause")
        self.define_as(name)

    def define_as(self, name: str) -> None:
        outer, self.variables = self.variables, ["$"]
        depth, self.range_depth = self.range_depth, 0
        body, end = self.body()
        if end.kind != "end":
            raise self.error(f"unexpected {{{{{end.text}}}}} in define clause", end)
        self.expect("close", "end")
        self.variables, self.range_depth = outer, depth
        if not any(map(_says_something, body)):
            self.defined.setdefault(name, body)
        elif any(map(_says_something, self.defined.get(name, ()))):
            raise self.error(f"template: multiple definition of template {quote(name)}", end)
        else:
            self.defined[name] = body

    def body(self) -> tuple[Body, Token]:
        """The nodes up to an `end` or `else`, and that token."""
        nodes: list[Node] = []
        while (token := self.next()).kind != "end":
            if token.kind == "text":
                nodes.append(_text(token))
                continue
            node = self.action()
            if isinstance(node, Token):
                return tuple(nodes), node
            nodes.append(node)
        raise self.error("unexpected EOF", token)

    # Actions

    def action(self) -> Node | Token:
        """The action after `{{`; the token itself where it is `end` or `else`."""
        token = self.next_word()
        match token.kind:
            case "end" | "else" if token.text:
                return token
            case "if" | "with":
                return self.branch(token)
            case "range":
                return self.range(token)
            case "template":
                return self.include(token)
            case "block":
                return self.block(token)
            case "break" | "continue":
                return self.jump(token)
            case "define":
                raise self.unexpected(token, "command")
        self.held.append(token)
        pipe = self.pipe("command", "close")
        return Action(offset=pipe.offset, source=pipe.source, pipe=pipe)

    def branch(self, keyword: Token) -> Branch:
        """`if` or `with`, after that word, with all that follows up to its `end`."""
        known = len(self.variables)
        pipe = self.pipe(keyword.text, "close")
        body, otherwise = self.bodies(keyword)
        del self.variables[known:]
        return Branch(
            offset=keyword.offset,
            source=pipe.source,
            pipe=pipe,
            body=body,
            otherwise=otherwise,
            rebinds_dot=keyword.kind == "with",
        )

    def range(self, keyword: Token) -> Range:
        known = len(self.variables)
        pipe = self.pipe("range", "close")
        self.range_depth += 1
        body, otherwise = self.bodies(keyword)
        del self.variables[known:]
        return Range(
            offset=keyword.offset, source=pipe.source, pipe=pipe, body=body, otherwise=otherwise
        )

    def bodies(self, keyword: Token) -> tuple[Body, Body]:
        """The body of `if`, `with` or `range`, and what follows `else`."""
        known = len(self.variables)
        body, end = self.body()
        if keyword.kind == "range":
            self.range_depth -= 1
        otherwise: Body = ()
        if end.kind == "else":
            del self.variables[known:]
            follows = self.peek_word()
            if follows.kind == keyword.kind and keyword.kind != "range":
                # `{{else if}}` is a branch inside the else, and their `end` is the same.
                return body, (self.branch(self.next()),)
            self.expect("close", "else")
            otherwise, end = self.body()
            if end.kind != "end":
                raise self.error("expected end; found {{else}}", end)
        self.expect("close", "end")
        return body, otherwise

    def include(self, keyword: Token) -> Include:
        offset = self.peek_word().offset
        name = self.string("template clause")
        pipe = None
        if self.peek_word().kind == "close":
            self.next()
        else:
            pipe = self.pipe("template clause", "close")
        source = "{{" + self.source(keyword.offset)
        return Include(offset=offset, source=source, name=name, pipe=pipe)

    def block(self, keyword: Token) -> Include:
        offset = self.peek_word().offset
        name = self.string("block clause")
        pipe = self.pipe("block clause", "close")
        source = "{{" + self.source(keyword.offset)
        self.define_as(name)
        return Include(offset=offset, source=source, name=name, pipe=pipe)

    def jump(self, keyword: Token) -> Node:
        self.expect("close", keyword.text)
        if not self.range_depth:
            raise self.error(f"{{{{{keyword.text}}}}} outside {{{{range}}}}", keyword)
        node = Break if keyword.kind == "break" else Continue
        return node(offset=keyword.offset, source=keyword.text)

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
            if second.kind in ("variable",):
                names.append(second.text)
                after = self.next_word()
                if after.kind not in ("declare", "="):
                    raise self.error("range can only initialize variables", second)
            else:
                raise self.unexpected(second, context)
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


_OPERANDS = frozenset(
    ("name", "dot", "nil", "variable", "field", "(", "number", "char", "string", "raw")
)


def _text(token: Token) -> Text:
    return Text(offset=token.offset, source=token.text, text=token.text)


def _says_something(node: Node) -> bool:
    return not (isinstance(node, Text) and not node.text.strip())


def _describe(token: Token) -> str:
    if token.kind == "end" and not token.text:
        return "EOF"
    if token.kind == "close":
        return '"}}"'
    if token.kind in KEYWORDS or token.kind == "dot":
        return f"<{token.text}>"
    return quote(token.text)
