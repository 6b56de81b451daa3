"""Instructions are checked as they are read, and refused in docker's words."""

from __future__ import annotations

import pytest

from wherry.builder.config import apply
from wherry.builder.copying import read_mode
from wherry.builder.errors import DockerfileError
from wherry.builder.graph import find_stage, needed, target_stage
from wherry.builder.instructions import Dockerfile, Instruction, Stage, read_dockerfile
from wherry.builder.mounts import read_mounts
from wherry.errors import NotFound, UsageError


def read(text: str) -> tuple[Instruction, ...]:
    return read_dockerfile(f"FROM a\n{text}\n").stages[0].instructions


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("FOO bar", "unknown instruction: FOO"),
        ("COPPY a b", "unknown instruction: COPPY (did you mean COPY?)"),
        ("RUN", "RUN requires at least one argument"),
        ("COPY a", "COPY requires at least two arguments, but only 1 provided"),
        ("COPY --form=x a b", "unknown flag: --form"),
        ("COPY --from a b", "missing a value on flag: from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag link, not: maybe"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: chown"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "Syntax error - can't find = in 'c'"),
        ("ENV =b", "ENV names can not be blank"),
        ("USER a b", "USER requires exactly one argument"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("HEALTHCHECK maybe", 'Unknown type "maybe" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("COPY a <<b\nc\nb", "COPY cannot accept a heredoc as a destination"),
        ('CMD ["a", 1]', "arrays must be comprised of strings only"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1", "invalid name for build stage"),
    ],
)
def test_a_wrong_instruction_is_refused_with_its_line(line: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        read(line)

    assert reason in refused.value.message
    assert "on line 2: " in refused.value.message
    assert refused.value.first == 2


@pytest.mark.parametrize(
    ("line", "words", "is_exec"),
    [
        ('CMD ["a", "b"] # what it runs', ("a", "b"), True),
        ('ENTRYPOINT [ "a" ];', ("a",), True),
        ('CMD [ "a" = "b" ]', ('[ "a" = "b" ]',), False),
        ("CMD [a]", ("[a]",), False),
        ("WORKDIR /a b/c", ("/a b/c",), False),
    ],
)
def test_what_comes_after_a_list_does_not_count(
    line: str, words: tuple[str, ...], is_exec: bool
) -> None:
    (found,) = read(line)

    assert (found.words, found.is_exec) == (words, is_exec)


def test_nothing_but_arguments_may_stand_before_the_first_from() -> None:
    assert read_dockerfile("ARG a=b\nFROM $a\n").globals[0].pairs == (("a", "b"),)
    with pytest.raises(DockerfileError, match="no build stage in current context"):
        read_dockerfile("RUN a\nFROM b\n")
    with pytest.raises(DockerfileError, match="no stages to build"):
        read_dockerfile("ARG a\n")


def test_a_trigger_keeps_its_heredocs() -> None:
    (trigger,) = read("ONBUILD COPY <<one <<-'two' /x/\n1\none\n\t$2\n\ttwo\n")

    assert trigger.words == ("COPY <<one <<-'two' /x/\n1\none\n\t$2\ntwo",)


def test_commands_are_lists_or_texts() -> None:
    run, cmd, nearly = read('RUN ["a", "b c"]\nCMD a "b"\nENTRYPOINT [a, b]')

    assert (run.is_exec, run.words) == (True, ("a", "b c"))
    assert (cmd.is_exec, cmd.words) == (False, ('a "b"',))
    assert (nearly.is_exec, nearly.words) == (False, ("[a, b]",))


def test_names_have_values_with_blanks_where_they_are_quoted() -> None:
    env, old, arg = read('ENV a="b c" d=e\\ f\nENV name some text\nARG one two=2')

    assert env.pairs == (("a", '"b c"'), ("d", "e\\ f"))
    assert old.pairs == (("name", "some text"),)
    assert arg.pairs == (("one", None), ("two", "2"))


def test_an_entrypoint_takes_the_command_of_the_base_away() -> None:
    entrypoint = read('ENTRYPOINT ["a"]')[0]
    base, own = {"Cmd": ["b"]}, {"Cmd": ["b"]}

    apply(base, entrypoint)
    apply(own, entrypoint, cmd_is_own=True)

    assert base == {"Entrypoint": ["a"]}
    assert own == {"Cmd": ["b"], "Entrypoint": ["a"]}


def test_a_health_check_has_its_times() -> None:
    config: dict[str, object] = {}

    apply(config, read("HEALTHCHECK --interval=5s --retries=3 CMD curl x || exit 1")[0])

    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "curl x || exit 1"],
        "Interval": 5_000_000_000,
        "Retries": 3,
    }


def test_modes_are_octal_or_symbolic() -> None:
    assert read_mode("755")(0o100644) == 0o755
    assert read_mode("u=rwx,go=rX")(0o100644) == 0o755
    assert read_mode("a+X")(0o040600) == 0o711
    assert read_mode("g-w,o=")(0o100666) == 0o640
    assert read_mode("u+s,+t")(0o100755) == 0o5755
    for text in ("", "8", "77777", "u", "x+r", "u+q"):
        with pytest.raises(UsageError, match="invalid chmod parameter"):
            read_mode(text)


TEXT = """\
FROM x AS base
FROM base AS Left
FROM base AS right
COPY --from=left a b
RUN --mount=from=base,target=/x true
FROM y AS alone
"""


def stages(file: Dockerfile) -> tuple[Stage, ...]:
    return file.stages


def test_stages_that_the_target_does_not_need_are_left_out() -> None:
    every = stages(read_dockerfile(TEXT))

    def base_of(stage: Stage) -> int | None:
        return find_stage(every, stage.base, before=stage.index)

    assert needed(every, target_stage(every, "RIGHT"), base_of) == [0, 1, 2]
    assert needed(every, target_stage(every, "left"), base_of) == [0, 1]
    assert needed(every, target_stage(every, ""), base_of) == [3]
    assert target_stage(every, "2") == 2
    with pytest.raises(NotFound, match='target stage "none" could not be found'):
        target_stage(every, "none")


def test_mounts_are_read_with_docker_s_spellings() -> None:
    instruction = read("RUN --mount=src=a,dst=b,ro --mount=type=cache,target=/c,mode=0700 x")[0]

    bind, cache = read_mounts(instruction, str, "/work")

    assert (bind.kind, bind.source, bind.target, bind.readonly) == ("bind", "a", "/work/b", True)
    assert (cache.kind, cache.id, cache.mode, cache.sharing) == ("cache", "/c", 0o700, "shared")
