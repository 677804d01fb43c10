"""`python -m worker`, which is the command `worker`.

The base package installs without what a worker needs; starting one there says
what to install instead of showing a traceback.
"""

from __future__ import annotations

import sys

EXIT_USAGE = 2


def main() -> int:
    """Run the command; its exit status."""
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
