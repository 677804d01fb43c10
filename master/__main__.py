"""`python -m master`, which is the command `master`.

The base package installs without what a master needs; starting one there says
what to install instead of showing a traceback.
"""

from __future__ import annotations

import sys

EXIT_USAGE = 2


def main() -> int:
    """Run the command; its exit status."""
    try:
        from master.cli import main as command

        return command()
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in ("master", "wire"):
            raise
        sys.stderr.write(
            f"master: the package {missing.name!r} is not installed here; "
            "install what a master needs: pip install 'lookout[master]'\n"
        )
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
