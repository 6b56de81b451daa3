"""wherry: one container command, with docker's words, on Linux, macOS and Windows."""

__version__ = "0.1.0"
