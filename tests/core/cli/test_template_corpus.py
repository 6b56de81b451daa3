"""What templates print, next to what Go's text/template printed of the same data.

The corpus was made by running each template through Go 1.24 with docker's functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherry.cli.template import TemplateError, parse_template

CORPUS = json.loads((Path(__file__).parent / "template_corpus.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CORPUS["cases"], ids=lambda case: case["template"][:60])
def test_template_prints_what_go_prints(case: dict[str, Any]) -> None:
    data = CORPUS["data"][case["data"]]

    if case.get("fails"):
        with pytest.raises(TemplateError):
            parse_template(case["template"]).render(data)
    else:
        assert parse_template(case["template"]).render(data) == case["output"]
