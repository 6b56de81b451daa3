"""What a spec cannot ask for, and the line that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.oci import Oci

pytestmark = pytest.mark.linux

_LIMIT = {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}


@pytest.mark.parametrize(
    ("section", "value", "reason"),
    [
        (("ociVersion",), "2.0.0", "unsupported ociVersion '2.0.0'"),
        (("ociVersion",), "one", "ociVersion 'one' is not a version"),
        (("process", "rlimits"), [_LIMIT, _LIMIT], "RLIMIT_NOFILE twice"),
        (("process", "cwd"), "tmp", "process.cwd is not an absolute path"),
        (("process", "selinuxLabel"), "a:b:c", "no SELinux"),
        (("process", "ioPriority"), {"class": "IOPRIO_CLASS_X"}, "unknown ioPriority class"),
        (("linux", "sysctl"), {"vm.swappiness": "1"}, "sysctl vm.swappiness is the host's"),
        (("linux", "personality"), {"domain": "BSD"}, "unknown personality 'BSD'"),
        (("linux", "rootfsPropagation"), "sideways", "unknown rootfsPropagation 'sideways'"),
        (("linux", "timeOffsets"), {"boottime": {"secs": 1}}, "needs a time namespace"),
        (("linux", "intelRdt"), {"closID": "x"}, "no resctrl file system is mounted"),
        (("root", "path"), "nowhere", "does not exist"),
    ],
)
def test_unsupported_value_is_one_clear_line(
    oci: Oci, section: tuple[str, ...], value: Any, reason: str
) -> None:
    place = oci.spec
    for key in section[:-1]:
        place = place[key]
    place[section[-1]] = value

    result = oci.run("true", check=False)

    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert oci("list", "-q").stdout == ""


def test_unknown_properties_mean_nothing(oci: Oci) -> None:
    oci.spec["novelty"] = {"a": 1}
    oci.spec["linux"]["novelty"] = [1]

    assert oci.run("echo", "fine").stdout == "fine\n"


def test_namespace_listed_twice_is_refused(oci: Oci) -> None:
    oci.spec["linux"]["namespaces"].append({"type": "pid"})

    assert "namespace pid is listed twice" in oci.run("true", check=False).stderr
