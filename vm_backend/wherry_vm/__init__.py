"""How a command reaches a Linux where this system is none: a machine under QEMU, over SSH."""
