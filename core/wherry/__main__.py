"""`python -m wherry`, and what the installed command `wherry` calls."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Carry out the command line and end the process."""
    from wherry.cli.main import main as run

    # Engines call a runtime by one path: a link of this name stands for `wherry oci`.
    is_runtime = os.path.basename(sys.argv[0]) == "wherry-oci"
    code = run(["oci", *sys.argv[1:]] if is_runtime else None)
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    finally:
        # Everything is written by now; taking the interpreter down would only cost time.
        os._exit(code)


if __name__ == "__main__":
    main()
