"""`--change`: the instructions of a Dockerfile that only touch the config."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.builder.changes import apply_changes
from wherry.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
        ("cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ('ENTRYPOINT ["x"]', {"Entrypoint": ["x"]}),
        ('ENV A=new B="x y"', {"Env": ["A=new", "B=x y"]}),
        ("ENV C some words", {"Env": ["A=old", "C=some words"]}),
        ("ENV B=$A:more", {"Env": ["A=old", "B=old:more"]}),
        ("LABEL a=b", {"Labels": {"a": "b"}}),
        ("EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("USER 5:6", {"User": "5:6"}),
        ("WORKDIR sub", {"WorkingDir": "/start/sub"}),
        ("WORKDIR /abs/../x", {"WorkingDir": "/x"}),
        ("STOPSIGNAL INT", {"StopSignal": "INT"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=5s --retries=2 CMD curl -f localhost",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl -f localhost"],
                    "Interval": 5_000_000_000,
                    "Retries": 2,
                }
            },
        ),
    ],
)
def test_an_instruction_changes_the_config(text: str, expected: dict[str, Any]) -> None:
    before = {"Env": ["A=old"], "WorkingDir": "/start"}

    assert apply_changes(before, [text]) == {**before, **expected}
    assert before == {"Env": ["A=old"], "WorkingDir": "/start"}


def test_an_entrypoint_takes_no_command_of_before() -> None:
    before = {"Cmd": ["old"]}

    assert apply_changes(before, ['ENTRYPOINT ["x"]']) == {"Entrypoint": ["x"]}
    assert apply_changes(before, ['CMD ["y"]', 'ENTRYPOINT ["x"]']) == {
        "Cmd": ["y"],
        "Entrypoint": ["x"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("USER", "USER requires exactly one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=b c", "can't find = in 'c'"),
        ("LABEL 'x", "LABEL must have two arguments"),
        ("ENV A=${B?missing}", "B: missing"),
        ("STOPSIGNAL FOO", "invalid signal: FOO"),
        ("EXPOSE x", "invalid range format for --expose: x"),
        ("HEALTHCHECK --foo=1 CMD x", "unknown flag: --foo"),
        ("HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --interval"),
        ("HEALTHCHECK x", 'Unknown type "x" in HEALTHCHECK (try CMD)'),
    ],
)
def test_a_wrong_instruction_is_told(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_changes({}, [text])

    assert message in caught.value.message
