"""What a Linux kernel is asked for: the Runtime that carries wherry's containers."""
