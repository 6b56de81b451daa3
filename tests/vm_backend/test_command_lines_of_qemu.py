"""QEMU's command line for every kind of host, against the ones that are kept here.

After a change that is meant: WHERRY_TEST_KEEP=1 pytest tests/vm_backend/… and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry.values import replace
from wherry_vm.qemu.binary import Qemu
from wherry_vm.qemu.command import Guest, Sockets, command_line, cpu_count
from wherry_vm.qemu.host import Host, is_virtual

KEPT = Path(__file__).parent / "command_lines"

UNIX = Sockets(
    qmp="qmp.sock",
    events="events.sock",
    commands=("command0.sock", "command1.sock"),
    shares=("share0.sock", "share1.sock"),
)
PORTS = Sockets(qmp="4001", events="4002", unix=False)

INTEL = Host(system="linux", architecture="x86_64", cpus=8, flags=frozenset({"vmx"}))
NESTED_AMD = Host(
    system="linux", architecture="x86_64", cpus=8, flags=frozenset({"svm", "hypervisor"})
)
LINUX_ARM = Host(system="linux", architecture="aarch64", cpus=8)
MAC_ARM = Host(system="darwin", architecture="aarch64", cpus=8, build=2400)
MAC_OLD = Host(system="darwin", architecture="aarch64", cpus=8, build=2104)
MAC_INTEL = Host(system="darwin", architecture="x86_64", cpus=8, build=2400)
WINDOWS_11 = Host(system="win32", architecture="x86_64", cpus=8, build=26100)
WINDOWS_10 = Host(system="win32", architecture="x86_64", cpus=8, build=19045)
WINDOWS_NESTED = replace(WINDOWS_11, flags=frozenset({"hypervisor"}))
WINDOWS_ARM = Host(system="win32", architecture="aarch64", cpus=8, build=26100)

CASES = {
    "linux-x86_64-kvm": (INTEL, (8, 2, 2), "kvm"),
    "linux-x86_64-kvm-nested-amd": (NESTED_AMD, (8, 2, 2), "kvm"),
    "linux-x86_64-tcg-7.2.22": (INTEL, (7, 2, 22), "tcg"),
    "linux-x86_64-tcg-8.2.2": (INTEL, (8, 2, 2), "tcg"),
    "linux-aarch64-kvm": (LINUX_ARM, (9, 2, 0), "kvm"),
    "linux-aarch64-tcg": (LINUX_ARM, (7, 2, 22), "tcg"),
    "darwin-aarch64-hvf": (MAC_ARM, (10, 1, 0), "hvf"),
    "darwin-aarch64-hvf-macos-12.3": (MAC_OLD, (10, 1, 0), "hvf"),
    "darwin-aarch64-tcg": (MAC_ARM, (10, 1, 0), "tcg"),
    "darwin-x86_64-hvf": (MAC_INTEL, (10, 1, 0), "hvf"),
    "win32-x86_64-whpx-11": (WINDOWS_11, (11, 0, 0), "whpx"),
    "win32-x86_64-whpx-10": (WINDOWS_11, (10, 1, 0), "whpx"),
    "win32-x86_64-whpx-windows-10": (WINDOWS_10, (11, 0, 0), "whpx"),
    "win32-x86_64-whpx-nested": (WINDOWS_NESTED, (11, 0, 0), "whpx"),
    "win32-x86_64-tcg": (WINDOWS_11, (11, 0, 0), "tcg"),
    "win32-aarch64-whpx": (WINDOWS_ARM, (11, 0, 0), "whpx"),
}


def test_qemu_is_confined_where_it_can_confine_itself() -> None:
    qemu = Qemu(path="qemu", version=(8, 2, 2), has_sandbox=True)

    words = command_line(INTEL, qemu, "tcg", guest(INTEL))

    confined = words[words.index("-sandbox") + 1]
    assert confined == "on,obsolete=deny,elevateprivileges=deny,spawn=deny"


def guest(host: Host) -> Guest:
    """A machine whose files are in a directory with a comma and a space in its name."""
    home = "C:\\Users\\Ann, B\\" if host.system == "win32" else "/home/ann, b/"
    return Guest(
        name="default",
        kernel=f"{home}kernel",
        initrd=f"{home}initrd",
        root=f"{home}root.erofs",
        data=f"{home}data.img",
        options=("console=ttyS0", "quiet"),
        firmware=(("authorized_keys", f"{home}key.pub"), ("host_key", f"{home}host_key")),
        console=f"{home}console.log",
        cpus=4,
        memory=4096,
        sockets=PORTS if host.system == "win32" else UNIX,
    )


def test_a_saved_start_is_gone_on_from_by_the_machine_that_it_is_of() -> None:
    qemu = Qemu(path="qemu-system-x86_64", version=(7, 2, 22))
    booted = command_line(INTEL, qemu, "tcg", guest(INTEL))

    resumed = command_line(INTEL, qemu, "tcg", replace(guest(INTEL), resumes=True))

    assert resumed == [*booted, "-incoming", "defer"]


@pytest.mark.parametrize("name", CASES)
def test_command_line_is_the_one_that_is_known_to_work(name: str) -> None:
    host, version, accelerator = CASES[name]
    qemu = Qemu(path=f"qemu-system-{host.architecture}", version=version)

    words = command_line(host, qemu, accelerator, guest(host))

    # An option and its value on a line.
    lines = " ".join(words).replace(" -", "\n-") + "\n"
    kept = KEPT / f"{name}.txt"
    if os.environ.get("WHERRY_TEST_KEEP"):
        kept.write_text(lines)
    assert lines == kept.read_text()


def test_emulated_machines_have_few_processors() -> None:
    old, new = (Qemu(path="qemu", version=version) for version in ((8, 0, 5), (8, 1, 0)))

    assert [cpu_count(qemu, "tcg", 8) for qemu in (old, new)] == [1, 2]
    assert [cpu_count(qemu, "kvm", 8) for qemu in (old, new)] == [8, 8]


@pytest.mark.parametrize(
    ("names", "virtual"),
    [
        (("Microsoft Corporation", "Virtual Machine"), True),
        (("VMware, Inc.", "VMware20,1"), True),
        (("QEMU", "Standard PC (Q35 + ICH9, 2009)"), True),
        (("Amazon EC2", "m5.large"), True),
        (("Microsoft Corporation", "Surface Laptop 5"), False),
        (("LENOVO", "20XW"), False),
        ((), False),
    ],
)
def test_a_windows_that_is_a_guest_itself_is_known_by_its_firmware(
    names: tuple[str, ...], virtual: bool
) -> None:
    assert is_virtual(*names) is virtual
