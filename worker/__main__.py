"""`python -m worker`, which is the command `worker`.

The base package installs without what a worker needs; starting one there says
what to install instead of showing a traceback.
"""

from __future__ import annotations

import os
import sys

EXIT_USAGE = 2


def main() -> int:
    """Run the command; its exit status."""
    # Read when numpy is imported: its small products are slower on many threads, and those
    # belong to inference.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.argv[1:2] == ["train"]:
        from worker.train.allocator import start_anew

        start_anew()
    try:
        from worker.cli import main as command

        return command()
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in ("worker", "wire"):
            raise
        sys.stderr.write(
            f"worker: the package {missing.name!r} is not installed here; "
            "install what a worker needs: pip install 'lookout[worker]'\n"
        )
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
