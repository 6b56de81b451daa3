"""The command line: one module per noun, each imported when it is asked for."""
