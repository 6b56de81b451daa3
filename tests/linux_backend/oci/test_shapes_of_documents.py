"""A config.json of the wrong shape is one clear line, whatever is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from wherry.errors import UsageError
from wherry.oci.runtime_spec import Spec
from wherry_linux.oci.shape import SPEC, check_shape

if TYPE_CHECKING:
    from support.oci import Oci


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("process.args", "true", "process.args is not a list"),
        ("process.args", [1], "process.args[0] is not a string"),
        ("process.user.uid", "0", "process.user.uid is not a whole number"),
        ("process.user.uid", -1, "process.user.uid is not a whole number that is not negative"),
        ("process.user.uid", True, "process.user.uid is not a whole number"),
        ("process.terminal", 1, "process.terminal is not true or false"),
        ("process.rlimits", [{}], "process.rlimits[0].type is missing"),
        ("mounts", [{"destination": 5}], "mounts[0].destination is not a string"),
        ("linux", [], "linux is not an object"),
        ("linux.sysctl", {"a.b": 1}, "linux.sysctl.a.b is not a string"),
        ("linux.resources", {"rdma": {"x": 1}}, "linux.resources.rdma.x is not an object"),
        ("ociVersion", None, "ociVersion is missing"),
    ],
)
def test_key_of_the_wrong_type_is_named(path: str, value: Any, reason: str) -> None:
    document: dict[str, Any] = {"ociVersion": "1.0.0", "process": {"user": {}}, "linux": {}}
    place = document
    *above, key = path.split(".")
    for name in above:
        place = place[name]
    place[key] = value

    with pytest.raises(UsageError) as raised:
        check_shape(document, SPEC, "config.json")
    assert str(raised.value).startswith(f"config.json: {reason}")


def test_null_is_as_good_as_no_key() -> None:
    document: dict[str, Any] = {"ociVersion": "1.0.0", "mounts": None, "linux": {"devices": None}}

    check_shape(document, SPEC, "config.json")

    assert document == {"ociVersion": "1.0.0", "linux": {}}


def test_shape_has_the_keys_and_types_of_the_specification() -> None:
    assert _differences(Spec, SPEC, "") == []


_WORDS = {"string": str, "bool": bool, "int": int, "uint": int}


def _differences(hint: Any, shape: Any, path: str) -> list[str]:
    """Where a type of `runtime_spec` and a shape do not say the same."""
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        keys = {key.rstrip("!"): inner for key, inner in shape.items()}
        if hints.keys() != keys.keys():
            return [f"{path}: {sorted(hints.keys() ^ keys.keys())}"]
        return [
            difference
            for key, inner in keys.items()
            for difference in _differences(hints[key], inner, f"{path}.{key}")
        ]
    if get_origin(hint) is list:
        return _differences(get_args(hint)[0], shape[0], f"{path}[]")
    if get_origin(hint) is dict:
        return _differences(get_args(hint)[1], shape[""], f"{path}.*")
    wanted = str if get_args(hint) else hint  # a Literal
    return [] if _WORDS.get(shape) is wanted else [f"{path}: {hint} and {shape}"]


@pytest.mark.linux
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "has no config.json"),
        ("{", "is damaged"),
        ("[]", "it is not an object"),
        ('{"ociVersion": "1.0.0", "process": "x"}', "process is not an object"),
    ],
)
def test_bundle_without_a_good_config_is_one_line(oci: Oci, text: str | None, reason: str) -> None:
    if text is not None:
        (oci.bundle / "config.json").write_text(text)
    else:
        (oci.bundle / "config.json").unlink()

    result = oci("create", "--bundle", str(oci.bundle), "c1", check=False)

    assert result.returncode == 1
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert oci("list", "-q").stdout == ""


@pytest.mark.linux
@pytest.mark.parametrize("name", ["../x", "a/b", ".", "", "a b", "ü"])
def test_id_that_is_no_name_of_a_directory_is_refused(oci: Oci, name: str) -> None:
    oci.write()

    result = oci("create", "--bundle", str(oci.bundle), "--", name, check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("wherry: ")
    assert oci("list", "-q").stdout == ""


@pytest.mark.linux
def test_process_document_of_the_wrong_shape_is_refused(oci: Oci) -> None:
    oci.create("c1", "sleep", "60")
    oci("start", "c1")
    document = oci.base / "process.json"
    document.write_text(json.dumps({"args": ["true"], "cwd": "/", "user": "root"}))

    result = oci("exec", "--process", str(document), "c1", check=False)

    assert (result.returncode, result.stderr) == (
        255,
        f"wherry: {document}: user is not an object\n",
    )
