"""QEMU: which one, with what accelerator, and its command line."""
