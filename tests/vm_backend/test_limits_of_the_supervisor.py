"""What the supervisor may have open, where its user's programs start with little."""

from __future__ import annotations

import subprocess
import sys


def test_few_descriptors_to_start_with_are_made_more() -> None:
    program = """if True:
        import resource
        from wherry_vm.descriptors import allow_many

        allow_many()
        print(*resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    words = ["sh", "-c", 'ulimit -S -n 256; ulimit -H -n 4096; exec "$@"', "sh"]
    done = subprocess.run(
        [*words, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "4096 4096\n"
