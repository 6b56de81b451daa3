"""Reads a template's tokens into a tree, by recursive descent."""

from __future__ import annotations

from wherry.cli.template.errors import parsing_error
from wherry.cli.template.lexer import Token
from wherry.cli.template.nodes import (
    Action,
    Branch,
    Break,
    Continue,
    Include,
    Node,
    Range,
    Text,
)
from wherry.cli.template.pipelines import PipelineParser
from wherry.human import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

Body = tuple[Node, ...]


def parse(name: str, text: str, functions: Container[str]) -> dict[str, Body]:
    """The templates that `text` defines; its own body is the one called `name`.

    Raises TemplateError.
    """
    try:
        return _Parser(name, text, functions).parse()
    except RecursionError:
        raise parsing_error(name, text, 0, "nested too deeply") from None


class _Parser(PipelineParser):
    """Reads text, actions and the templates that they make up."""

    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        super().__init__(name, text, functions)
        self.range_depth = 0
        self.defined: dict[str, Body] = {}

    def parse(self) -> dict[str, Body]:
        body: list[Node] = []
        while (token := self.next()).kind != "eof":
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
        while (token := self.next()).kind != "eof":
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
            case "end" | "else":
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


def _text(token: Token) -> Text:
    return Text(offset=token.offset, source=token.text, text=token.text)


def _says_something(node: Node) -> bool:
    return not (isinstance(node, Text) and not node.text.strip())
