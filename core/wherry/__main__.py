"""`python -m wherry`, and what the installed command `wherry` calls."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Carry out the command line and end the process."""
    from wherry.cli.main import main as run

    code = run()
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        # Everything is written by now; taking the interpreter down would only cost time.
        os._exit(code)


if __name__ == "__main__":
    main()
