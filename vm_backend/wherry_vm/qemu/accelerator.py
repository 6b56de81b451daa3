"""Which accelerator to believe.

What can be seen without starting anything is asked here (`candidates`); an accelerator that
passes is believed only when a guest has spoken under it (`wherry_vm.boot`), since some open,
make a machine and then hang every guest.
"""

from __future__ import annotations

import os
import sys

from wherry.values import value
from wherry_vm.qemu.command import ACCELERATORS
from wherry_vm.qemu.host import sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry_vm.qemu.host import Host

KVM = "/dev/kvm"
PVM = "/sys/module/kvm_pvm"

_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12


@value
class Refusal:
    """An accelerator that is not used, and why."""

    name: str
    reason: str
    mend: str = ""


def candidates(host: Host) -> tuple[list[str], list[Refusal]]:
    """The accelerators to try, best first, and those that cannot work.

    WHERRY_ACCEL names the only one to try.
    """
    if chosen := os.environ.get("WHERRY_ACCEL"):
        return [chosen], []
    name = ACCELERATORS.get(host.system)
    if name is None:
        return ["tcg"], []
    refusal = _refusal(name, host) if host.is_native else _foreign(name)
    if refusal is not None:
        return ["tcg"], [refusal]
    return [name, "tcg"], []


def _foreign(name: str) -> Refusal:
    return Refusal(name=name, reason="the guest is for another kind of processor than this host's")


def _refusal(name: str, host: Host) -> Refusal | None:
    """Why this accelerator cannot work here; None where nothing speaks against it."""
    if name == "kvm":
        return _without_kvm(host)
    return _without_hvf() if name == "hvf" else _without_whpx()


def _without_kvm(host: Host) -> Refusal | None:
    if os.path.exists(PVM) and not os.environ.get("WHERRY_TRUST_KVM"):
        return Refusal(
            name="kvm",
            reason="this host's KVM is PVM, which runs only kernels made for it",
        )
    try:
        descriptor = os.open(KVM, os.O_RDWR)
    except FileNotFoundError:
        reason = "the kernel has no /dev/kvm"
        if not host.flags & {"vmx", "svm"} and host.architecture == "x86_64":
            reason = "the processor offers no virtualization (neither vmx nor svm)"
        return Refusal(name="kvm", reason=reason, mend="enable it in the firmware, or the host VM")
    except OSError as error:
        return Refusal(
            name="kvm",
            reason=f"cannot open {KVM}: {error.strerror}",
            mend="sudo usermod -aG kvm $USER, and log in again",
        )
    try:
        if _api_version(descriptor) != _KVM_API_VERSION:
            return Refusal(name="kvm", reason=f"{KVM} speaks another version of its interface")
    finally:
        os.close(descriptor)
    return None


def _api_version(descriptor: int) -> int:
    if sys.platform == "win32":
        return -1
    import fcntl

    try:
        return fcntl.ioctl(descriptor, _KVM_GET_API_VERSION, 0)
    except OSError:
        return -1


def _without_hvf() -> Refusal | None:
    if sysctl("kern.hv_support") != "1":
        return Refusal(
            name="hvf",
            reason="this macOS offers no Hypervisor.framework (kern.hv_support)",
            mend="on a virtual Mac only its host can give it",
        )
    return None


def _without_whpx() -> Refusal | None:
    if sys.platform != "win32":
        return Refusal(name="whpx", reason="there is no WinHvPlatform.dll here")
    import ctypes

    try:
        platform = ctypes.windll.LoadLibrary("WinHvPlatform.dll")
    except (AttributeError, OSError):
        present = False
    else:
        found = ctypes.c_uint32(0)
        size = ctypes.c_uint32(0)
        # WHvCapabilityCodeHypervisorPresent
        failed = platform.WHvGetCapability(0, ctypes.byref(found), 4, ctypes.byref(size))
        present = not failed and bool(found.value)
    if present:
        return None
    return Refusal(
        name="whpx",
        reason="the Windows Hypervisor Platform is not enabled",
        mend="as administrator: dism /Online /Enable-Feature /FeatureName:HypervisorPlatform /All",
    )


def describe(refusals: Sequence[Refusal]) -> str:
    """One line that says why the machine will be slow."""
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in refusals)
    return f"emulating the processor, which is slow ({reasons or 'as WHERRY_ACCEL wants it'})"
