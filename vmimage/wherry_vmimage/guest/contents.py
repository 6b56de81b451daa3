"""What is in a guest: which packages, and what is taken of them.

No maintainer script runs, so what only scripts need is left out, and with it half of
what the packages would bring along. Nothing here is of one architecture.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wherry_vmimage.tree import Tree

KERNEL = "linux-image-cloud-{architecture}"
BUSYBOX = "busybox-static"
PYTHON = "python3"
PACKAGES = (
    KERNEL,
    BUSYBOX,  # the init, the shell, and every tool that no package below brings
    PYTHON,
    # What wherry imports in a guest.
    "python3-click",
    "python3-platformdirs",
    "python3-truststore",
    "python3-urllib3",
    "python3-zstandard",
    "debian-archive-keyring",  # `bootstrap`: which archive to believe
    "gpgv",
    "base-files",  # what system it is, and the licences that others refer to
    "ca-certificates",
    "openssh-server",
    "nftables",
    "iproute2",
    "passt",  # containers' default network
    "procps",  # `top` with options: what ps shows is what people read elsewhere
    "sshfs",  # the host's directories
    "e2fsprogs",  # the data disk
    "tzdata",  # `run --tz`
    "uidmap",
)

# Needed by other packages' scripts, by their systemd units, or by programs of theirs that
# UNWANTED leaves out.
OMITTED = tuple(
    """
    adduser awk base-passwd bash bsdextrautils coreutils dash debconf debianutils dpkg
    init-system-helpers initramfs-tools install-info kmod libpam-modules libpam-runtime
    linux-base login.defs logsave
    lsb-base media-types mount netbase openssl openssl-provider-legacy passwd perl-base
    runit-helper sed sensible-utils systemd systemd-standalone-sysusers sysvinit-utils tar
    ucf udev util-linux
    libdb5.3t64 libncursesw6 libreadline8t64 readline-common
    libdb5.3 libreadline8
    """.split()
)

_PYTHON_LIBRARY = r"usr/lib/python3\.\d+"
UNWANTED = re.compile(
    "|".join(
        (
            r"boot/.*",
            r"usr/lib/modules/.*",
            r"usr/lib/(?:systemd|init|sysctl\.d|sysusers\.d|tmpfiles\.d|udev|pcrlock\.d)\b.*",
            r"usr/lib/(?:[^/]+/)?(?:gconv|engines-3|ossl-modules|audit|perl|tc)\b.*",
            r"usr/lib/openssh/(?:ssh-keysign|ssh-pkcs11-helper|ssh-sk-helper|agent-launch|sftp-server)",
            r"usr/lib/valgrind.*",
            r"usr/share/(?!ca-certificates/|keyrings/|python3/|zoneinfo/)[^/]+/.*",
            r"usr/share/zoneinfo/(?:posix|right)/.*",
            r"usr/share/python3/.*",
            r"usr/share/keyrings/debian-archive-(?!keyring\.).*",
            r"usr/s?bin/(?:arpd|py3\w+|pydoc.*|pygettext.*|mk_modmap|e2scrub.*|e4crypt|ssh-(?:agent|add|copy-id|argv0|keyscan)|ssh|scp|sftp|slogin|rtmon|mklost.found|update-ca-certificates|busybox-static)",
            r"usr/s?bin/(?:free|kill|pgrep|pidwait|pkill|pmap|pwdx|skill|slabtop|snice|sysctl|tload|top|uptime|vmstat|w|watch)",
            r"etc/(?:init\.d|default|pam\.d|cron\.[^/]*|kernel|logrotate\.d|ufw|apparmor\.d|security|runit|sv|e2scrub\.conf|mke2fs\.conf\.dpkg|bash_completion\.d|ssh)\b.*",
            rf"{_PYTHON_LIBRARY}/(?:test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|sqlite3|dbm|curses|venv|config-[^/]*|__phello__|turtle\.py|_pydecimal\.py.*)\b.*",
            rf"{_PYTHON_LIBRARY}/lib-dynload/(?:_sqlite3|_dbm|_gdbm|_curses|readline|_tkinter|_test|xx|_ctypes_test)[^/]*",
            r".*/__pycache__/.*",
            r".*\.(?:a|la|h|pod)",
        )
    )
)  # fmt: skip

# The modules of the kernel that a guest has, below `kernel/`. What a container host may
# be asked for: packet filters and virtual networks, file systems that are mounted from
# files, and the devices of a QEMU machine.
MODULES = (
    r"net/(?:802|8021q|bridge|core|ipv4|ipv6|key|llc|netfilter|netlink|packet|sched|unix|vmw_vsock|xfrm)/",
    r"drivers/net/(?:bonding|geneve|ifb|ipvlan|macvlan|macvtap|tap|tun|veth|virtio_net|vrf|vxlan|wireguard|dummy)\b",
    r"drivers/(?:virtio|vhost)/",
    r"drivers/block/(?:loop|nbd|virtio_blk|zram)\b",
    r"drivers/char/hw_random/virtio-rng",
    r"drivers/firmware/qemu_fw_cfg",
    r"drivers/acpi/button",
    r"drivers/input/evdev",
    r"drivers/md/dm-(?:mod|crypt|thin-pool|snapshot|verity)\b",
    r"fs/(?:9p|autofs|binfmt_misc|erofs|exfat|fat|fuse|isofs|nls|overlayfs|squashfs|udf)\b",
    r"crypto/(?:af_alg|algif)",
    r"lib/(?:crc|libcrc)",
)
# Loaded before the root is there. Without a source of random numbers sshd would wait.
FIRST_MODULES = ("virtio_blk", "virtio_rng", "virtio_net", "erofs", "overlay", "qemu_fw_cfg")
# The same, where they are not built into the kernel.
OPTIONAL_FIRST_MODULES = ("virtio_pci", "virtio_console", "ext4")


def packages(architecture: str) -> list[str]:
    return [name.format(architecture=architecture) for name in PACKAGES]


def remove_unwanted(tree: Tree) -> None:
    tree.remove(lambda path: UNWANTED.fullmatch(path) is not None)
