"""What an image can try against the host while the runtime enters it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Oci

pytestmark = pytest.mark.linux


@pytest.fixture(params=["no user namespace", "every id mapped to itself"])
def attacked(request: pytest.FixtureRequest, oci: Oci, mapped: Callable[[], None]) -> Oci:
    """The runtime, for containers whose root is the host's or has its ids."""
    if request.param != "no user namespace":
        mapped()
    return oci


def _plant(oci: Oci, name: str, text: str) -> None:
    path = oci.rootfs / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def test_script_whose_interpreter_is_ourselves_runs_nothing_of_the_host(attacked: Oci) -> None:
    _plant(attacked, "evil", "#!/proc/self/exe\n")

    result = attacked.run("evil", check=False)

    assert result.returncode == 1
    assert result.stdout == ""


def test_link_to_our_executable_runs_nothing_of_the_host(attacked: Oci) -> None:
    (attacked.rootfs / "bin/evil").symlink_to("/proc/self/exe")

    result = attacked.run("evil", "-c", "print('host interpreter')", check=False)

    assert result.returncode == 1
    assert "host interpreter" not in result.stdout


def test_exec_of_our_executable_runs_nothing_of_the_host(attacked: Oci) -> None:
    (attacked.rootfs / "bin/evil").symlink_to("/proc/self/exe")
    attacked.create("c1", "sleep", "60")
    attacked("start", "c1")

    result = attacked("exec", "c1", "evil", "-c", "print('host interpreter')", check=False)

    assert result.returncode != 0
    assert "host interpreter" not in result.stdout


@pytest.mark.parametrize("descriptor", range(3, 12))
def test_working_directory_outside_is_refused(attacked: Oci, descriptor: int) -> None:
    attacked.spec["process"]["cwd"] = f"/proc/self/fd/{descriptor}"
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)

    result = attacked.run("ls", check=False, pass_fds=(leaked,))

    os.close(leaked)
    assert result.returncode == 1
    assert "cannot change to directory" in result.stderr


@pytest.mark.parametrize("destination", ["/proc/self", "/proc/sys/kernel", "/link/sys"])
def test_mount_below_proc_is_refused(attacked: Oci, destination: str) -> None:
    (attacked.rootfs / "link").symlink_to("/proc")
    attacked.spec["mounts"].append({"destination": destination, "type": "tmpfs", "source": "tmpfs"})

    result = attacked.run("true", check=False)

    assert "is below /proc" in result.stderr


def test_proc_that_is_a_link_is_refused(attacked: Oci) -> None:
    (attacked.rootfs / "proc").rmdir()
    (attacked.rootfs / "proc").symlink_to("/tmp")

    assert "it leads to /tmp" in attacked.run("true", check=False).stderr


def test_masked_files_are_empty_whatever_the_image_has_as_its_null_device(attacked: Oci) -> None:
    attacked.spec["mounts"] = [
        mount for mount in attacked.spec["mounts"] if not mount["destination"].startswith("/dev")
    ]
    (attacked.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")

    result = attacked.run("cat", "/proc/timer_list", "/proc/keys", check=False)

    assert (result.returncode, result.stdout) == (0, "")


def test_terminal_multiplexer_that_is_a_file_is_refused(attacked: Oci) -> None:
    attacked.spec["mounts"] = [
        mount for mount in attacked.spec["mounts"] if not mount["destination"].startswith("/dev")
    ]
    (attacked.rootfs / "dev/pts").mkdir()
    (attacked.rootfs / "dev/pts/ptmx").write_text("")
    attacked.spec["process"]["terminal"] = True

    result = attacked.run("true", check=False)

    assert "its /dev/ptmx is not the device" in result.stderr


def test_link_at_a_mounts_destination_stays_in_the_root(attacked: Oci) -> None:
    outside = attacked.base / "outside"
    outside.mkdir()
    (attacked.rootfs / "data").symlink_to(outside)
    attacked.spec["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs"})
    attacked.spec["root"]["readonly"] = False

    attacked.run("sh", "-c", "echo x > /data/file")

    assert list(outside.iterdir()) == []


def test_program_has_no_descriptor_of_ours(attacked: Oci) -> None:
    assert attacked.run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]
