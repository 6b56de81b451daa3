"""Go's text/template, for `--format`: what docker's users write in `inspect` and `ps`.

    parse_template("{{.Name}}: {{json .Config.Env}}").render(document)

Data are what JSON gives: dicts, lists, strings, numbers, booleans, None; `documents`
adds Go's types to them. A callable in a dict is a method: `{{.Label "com.example"}}`.
Imported only when a template is given.
"""

from __future__ import annotations

from wherry.cli.template.documents import Row, Struct, typed
from wherry.cli.template.encode import encode
from wherry.cli.template.errors import TemplateError
from wherry.cli.template.evaluator import evaluate
from wherry.cli.template.functions import FUNCTIONS, HEADER_FUNCTIONS
from wherry.cli.template.parser import parse
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.template.parser import Body

__all__ = ["Row", "Struct", "Template", "TemplateError", "encode", "parse_template", "typed"]


@value
class Template:
    name: str
    text: str
    templates: dict[str, Body]

    def render(self, data: object) -> str:
        """What the template prints of `data`. Raises TemplateError."""
        return evaluate(self.name, self.text, self.templates, FUNCTIONS, data)

    def render_heading(self, titles: dict[str, object]) -> str:
        """The heading of a table whose rows this template makes; "" if titles cannot tell."""
        try:
            return evaluate(self.name, self.text, self.templates, HEADER_FUNCTIONS, titles)
        except TemplateError:
            return ""


def parse_template(text: str, name: str = "") -> Template:
    """A template, ready to be rendered as often as there are data. Raises TemplateError."""
    return Template(name=name, text=text, templates=parse(name, text, FUNCTIONS))
