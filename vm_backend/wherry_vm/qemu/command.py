"""QEMU's command line: a pure function of the host, the QEMU, the accelerator, the machine.

Each trap of an accelerator, a system or a version stands where it is dealt with.
QEMU runs in the machine's run directory: sockets are named relative to it, since the path
of one may have 107 bytes (103 on macOS).
"""

from __future__ import annotations

from wherry.values import value
from wherry_vm.protocol import COMMAND_PORT, SHARE_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wherry_vm.qemu.binary import Qemu
    from wherry_vm.qemu.host import Host

PID_FILE = "qemu.pid"
"""Where QEMU says which process it is, in the run directory."""

ACCELERATORS = {"linux": "kvm", "darwin": "hvf", "win32": "whpx"}

_MOST_TCG_CPUS = 2
"""Emulated processors beyond that cost more than they bring."""

_SAFE_THREADS = (8, 1, 0)
"""The first QEMU whose emulated processors may each have a thread. Before, one translates code
that another changes at that moment, and keeps what it was: a guest's kernel, which changes its
own while it runs, panics over a breakpoint that has long been taken away."""

_DEAR = ("erms", "la57", "pku", "smap")
"""What of an emulated x86 processor costs more than it brings: a copy byte by byte is said to be
the fastest, and is the slowest; page tables have a level more; each switch of tasks has a
register more to keep, and each access to a program's memory two switches more."""

MOST_PORTS = 13
"""Ports of one virtio-serial device. QEMU tells the guest of each in up to three messages, for
which that has room for 32 at a time, and drops what does not fit: with 18 of them the last five
have no name."""

_WINDOWS_11 = 22000
_MACOS_12_4 = 2105
"""The version of its kernel, as in Host."""


@value
class Sockets:
    """Where the supervisor listens for QEMU: QEMU connects, so that nobody else can get at it.

    A path relative to the run directory, or a port of 127.0.0.1 where `unix` is False.
    """

    qmp: str
    events: str
    commands: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    unix: bool = True


@value
class Guest:
    """What the machine is to be: files by their absolute paths, memory in MiB.

    `options` are what its kernel is told; `firmware` are files that the guest reads at its
    start, by the names that it knows them by. One that `resumes` does not boot: QEMU waits to be
    given the state that it had.
    """

    name: str
    kernel: str
    initrd: str
    root: str
    data: str
    options: tuple[str, ...]
    firmware: tuple[tuple[str, str], ...]
    console: str
    cpus: int
    memory: int
    sockets: Sockets
    resumes: bool = False


def command_line(host: Host, qemu: Qemu, accelerator: str, guest: Guest) -> list[str]:
    """The words that start `guest` with `accelerator`: kvm, hvf, whpx or tcg."""
    return [
        qemu.path,
        *("-name", f"wherry-{guest.name}"),
        *_sandbox(qemu),
        # Nothing that we do not name: no floppy, no default network, no configuration file.
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # It is there before a disk is opened, and locked: no two QEMUs have one machine's.
        *("-pidfile", PID_FILE),
        *("-machine", _machine(host, accelerator)),
        *("-accel", _accelerator(host, qemu, accelerator)),
        *("-cpu", cpu_model(host, qemu, accelerator)),
        *("-smp", str(cpu_count(qemu, accelerator, guest.cpus))),
        *("-m", f"{_memory(host, accelerator, guest.memory)}M"),
        # The guest asks the RTC after the host has slept: it has to have gone on.
        *("-rtc", "base=utc,clock=host"),
        *("-kernel", guest.kernel, "-initrd", guest.initrd),
        *("-append", " ".join((*guest.options, *_kernel_options(host, qemu, accelerator)))),
        *_firmware(guest),
        *_console(guest),
        *_disks(guest),
        *_network(),
        *_channels(accelerator, guest),
        # Without entropy the guest's sshd waits for seconds on processors without RDRAND.
        *("-device", "virtio-rng-pci"),
        # Memory that the guest does not use goes back to the host.
        *("-device", "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on"),
        *(("-incoming", "defer") if guest.resumes else ()),
    ]


def _sandbox(qemu: Qemu) -> Sequence[str]:
    # A guest that breaks out of QEMU's devices starts no program and gets no more rights.
    denied = ",".join(f"{each}=deny" for each in ("obsolete", "elevateprivileges", "spawn"))
    return ("-sandbox", f"on,{denied}") if qemu.has_sandbox else ()


def cpu_count(qemu: Qemu, accelerator: str, wanted: int) -> int:
    """The processors of a machine that is to have `wanted`."""
    if accelerator != "tcg":
        return wanted
    # In one thread a second processor would only take turns with the first.
    return 1 if qemu.version < _SAFE_THREADS else min(wanted, _MOST_TCG_CPUS)


def _memory(host: Host, accelerator: str, wanted: int) -> int:
    """The memory of a machine that is to have `wanted`, both in MiB."""
    if accelerator == "hvf" and host.architecture == "aarch64" and host.build < _MACOS_12_4:
        # More than that, and these versions of macOS crash, all of them.
        return min(wanted, 3072)
    return wanted


def cpu_model(host: Host, qemu: Qemu, accelerator: str) -> str:
    """The processor that the guest sees."""
    if host.architecture == "aarch64":
        return _arm_model(host, accelerator)
    if accelerator == "tcg":
        # TCG computes VINSERTx128 wrong before the fix (QEMU 7.2.20, 10.0.4, 10.1.0).
        wrong = () if _computes_avx2(qemu) else ("avx2",)
        return ",-".join(("max", *wrong, *_DEAR))
    if accelerator == "whpx":
        # `host` and `max`, and models newer than the processor, hang; under another
        # hypervisor so does everything newer than this one.
        return "Nehalem" if "hypervisor" in host.flags else "qemu64"
    if accelerator == "hvf":
        # Features that Hypervisor.framework names and does not have.
        return "host,-pdpe1gb,-avx512vl"
    model = "host,-vmx,-svm"
    if "svm" in host.flags and "hypervisor" in host.flags:
        # Nested on AMD the guest's AVX-512 registers are not kept.
        model += ",-avx512f"
    return model


def _arm_model(host: Host, accelerator: str) -> str:
    if accelerator == "tcg":
        # `max` computes pointer authentication in software: 5 s to boot instead of 1.6.
        return "cortex-a72"
    return "host,pmu=off" if host.system == "darwin" else "host"


def _computes_avx2(qemu: Qemu) -> bool:
    version = qemu.version
    if version < (7, 2, 0) or version >= (10, 1, 0):
        return True
    return (7, 2, 20) <= version < (8, 0, 0) or (10, 0, 4) <= version < (10, 1, 0)


def _machine(host: Host, accelerator: str) -> str:
    if host.architecture == "x86_64":
        # Not microvm: without kvm-clock it hangs now and then when the TSC is calibrated.
        return "q35,vmport=off"
    # `highmem` stays as it is: QEMU since 7 puts only that above 4 GiB which the processor's
    # addresses reach. `dtb-randomness` too: the guest starts with it, before virtio-rng is there.
    machine = "virt"
    if accelerator == "kvm":
        # Whichever interrupt controller the host's own lets guests have.
        machine += ",gic-version=max"
    elif accelerator == "hvf":
        # A few devices do without message interrupts, and QEMU without emulating an ITS.
        machine += ",gic-version=3,its=off"
    return machine


def _accelerator(host: Host, qemu: Qemu, accelerator: str) -> str:
    if accelerator == "tcg":
        return "tcg,thread=multi,tb-size=256"
    if accelerator == "whpx" and needs_no_apic(host, qemu):
        return "whpx,kernel-irqchip=off"
    return accelerator


def needs_no_apic(host: Host, qemu: Qemu) -> bool:
    """Whether WHPX's interrupt controller must not be used.

    Before QEMU 11, and on Windows 10, guests hang with it; on arm64 there is no other.
    """
    if host.architecture == "aarch64":
        return False
    return qemu.version < (11, 0, 0) or host.build < _WINDOWS_11


def _kernel_options(host: Host, qemu: Qemu, accelerator: str) -> list[str]:
    # Not cpuidle.governor=haltpoll with KVM: what polls before it sleeps is never idle.
    options = []
    if accelerator == "whpx" and needs_no_apic(host, qemu):
        options.append("noapic")
    if accelerator == "hvf":
        # Waiting for an interrupt by polling costs most of a host's processor.
        options.append("cpuidle.off=1")
    return options


def _firmware(guest: Guest) -> list[str]:
    """Keys and settings by QEMU's fw_cfg: neither a network nor a disk has to be there."""
    words = []
    for name, path in guest.firmware:
        words += ["-fw_cfg", f"name=opt/org.wherry/{name},file={quoted(path)}"]
    return words


def _console(guest: Guest) -> Sequence[str]:
    # Appended to, so that it can be emptied when the guest has said too much.
    chardev = f"file,id=console,path={quoted(guest.console)},append=on"
    return ("-chardev", chardev, "-serial", "chardev:console")


def _disks(guest: Guest) -> Sequence[str]:
    root = (
        "driver=raw,node-name=root,read-only=on,"
        f"file.driver=file,file.filename={quoted(guest.root)}"
    )
    data = (
        # What the guest frees is freed here, and what fails is told to the guest.
        "driver=raw,node-name=data,discard=unmap,detect-zeroes=unmap,"
        f"file.driver=file,file.filename={quoted(guest.data)},file.discard=unmap"
    )
    return (
        *("-blockdev", root, "-device", "virtio-blk-pci,drive=root,serial=wherry-root"),
        *("-blockdev", data),
        *("-device", "virtio-blk-pci,drive=data,serial=wherry-data,werror=report,rerror=report"),
    )


def quoted(path: str) -> str:
    """A path among options that commas separate."""
    return path.replace(",", ",,")


def _network() -> Sequence[str]:
    return (
        # A free port that the monitor tells: one that was looked for before could be taken.
        *("-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22"),
        # No boot over the network, so no image for it.
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    )


def _channels(accelerator: str, guest: Guest) -> Sequence[str]:
    sockets = guest.sockets
    shares = range(len(sockets.shares))
    return (
        *("-chardev", _chardev("qmp", sockets.qmp, sockets.unix)),
        *("-mon", "chardev=qmp,mode=control"),
        *_serial(accelerator, "commands", 1 + len(sockets.commands)),
        *("-chardev", _chardev("events", sockets.events, sockets.unix)),
        *("-device", _port("events", "org.wherry.events", "commands")),
        *_ports("command", COMMAND_PORT, sockets.commands, lambda _: "commands"),
        *(
            word
            for first in shares[::MOST_PORTS]
            for word in _serial(accelerator, share_bus(first), len(shares[first:][:MOST_PORTS]))
        ),
        *_ports("share", SHARE_PORT, sockets.shares, share_bus),
    )


def share_bus(number: int) -> str:
    """The device that has the port of the share of that number."""
    return f"shares{number // MOST_PORTS}"


def _serial(accelerator: str, name: str, ports: int) -> Sequence[str]:
    """A device with so many ports: a queue each way for each, and for the one that it keeps."""
    most = ports + 1
    # With an interrupt for each queue the guest need not look through all of them.
    device = f"virtio-serial-pci,id={name},max_ports={most},vectors={2 * (most + 1) + 1}"
    if accelerator != "kvm":
        # Only KVM tells another thread without leaving the guest's. Elsewhere that thread would
        # have to be woken for each packet; done at once, a share answers three times as fast.
        device += ",ioeventfd=off"
    return ("-device", device)


def _ports(kind: str, name: str, places: Sequence[str], bus: Callable[[int], str]) -> Iterator[str]:
    """A port for each of the UNIX sockets at `places`, with its number in its names."""
    for number, where in enumerate(places):
        yield from ("-chardev", _chardev(f"{kind}{number}", where, unix=True))
        yield from ("-device", _port(f"{kind}{number}", f"{name}{number}", bus(number)))


def _port(identity: str, name: str, bus: str) -> str:
    """A port, which has a name of its own to be plugged out by: a share's sshfs may end."""
    return f"virtserialport,bus={bus}.0,id={identity},chardev={identity},name={name}"


def _chardev(name: str, where: str, unix: bool) -> str:
    if unix:
        return f"socket,id={name},path={quoted(where)}"
    return f"socket,id={name},host=127.0.0.1,port={where}"
