"""Writes numbers.py, the table of system call numbers, from the kernel's headers.

    python -m wherry_linux.seccomp.generate_numbers UAPI > numbers.py

UAPI is a directory with the headers of every architecture, as Debian's linux-libc-dev
has in /usr/lib/linux/uapi since version 6.12 (the package can be unpacked anywhere).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# In the order of the columns; the order is wherry's, not the kernel's.
HEADERS = {
    "x86_64": "x86/asm/unistd_64.h",
    "x86": "x86/asm/unistd_32.h",
    "x32": "x86/asm/unistd_x32.h",
    "aarch64": "arm64/asm/unistd_64.h",
    "arm": "arm/asm/unistd-eabi.h",
}

# asm/unistd.h of arm: calls of its own, from 0x0f0000 on.
ARM_PRIVATE = {
    "breakpoint": 0xF0001,
    "cacheflush": 0xF0002,
    "usr26": 0xF0003,
    "usr32": 0xF0004,
    "set_tls": 0xF0005,
    "get_tls": 0xF0006,
}

# Linux 6.13 to 6.17, newer than the headers; from 424 on a call has one number everywhere.
NEWER = {
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}

_DEFINITION = re.compile(
    r"^#define __NR_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ |__NR_SYSCALL_BASE \+ )?(\d+)\)?", re.M
)


def read_header(path: Path) -> dict[str, int]:
    """The calls that a header defines."""
    return {name: int(number) for name, number in _DEFINITION.findall(path.read_text())}


def table(uapi: Path) -> dict[str, list[int | None]]:
    """For each call its number per architecture."""
    columns = [{**NEWER, **read_header(uapi / header)} for header in HEADERS.values()]
    arm = columns[-1]
    arm.update(ARM_PRIVATE)
    # Its second name, which the profiles use.
    arm["sync_file_range2"] = arm["arm_sync_file_range"]
    names = sorted({name for column in columns for name in column})
    return {name: [column.get(name) for column in columns] for name in names}


def main() -> None:
    rows = table(Path(sys.argv[1]))
    print('"""System call numbers by architecture. Written by generate_numbers.py."""\n')
    print("from __future__ import annotations\n")
    print(f"ARCHITECTURES = ({', '.join(f'{name!r}' for name in HEADERS)})\n".replace("'", '"'))
    print("# x32's are without its bit 30.")
    print("NUMBERS: dict[str, tuple[int | None, ...]] = {")
    for name, numbers in rows.items():
        print(f'    "{name}": ({", ".join(map(str, numbers))}),')
    print("}")


if __name__ == "__main__":
    main()
