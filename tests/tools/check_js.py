"""Type-check the page's modules through their JSDoc, as tsconfig.json says.

    python -m tests.tools.check_js

TypeScript comes by `npx`, in the version below, and stays in npm's cache. Without npx the check
is skipped and says so; where `LOOKOUT_REQUIRE` lists `javascript` that is a failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.shared import REPOSITORY, required_features

TYPESCRIPT = "typescript@7.0.2"
RUN_S = 300


def main() -> int:
    """The exit status of the compiler."""
    npx = shutil.which("npx")
    if npx is None:
        print("javascript: not checked, there is no npx (apt-get install npm)", file=sys.stderr)
        return int("javascript" in required_features())
    command = [npx, "--yes", "--package", TYPESCRIPT, "--", "tsc", "--project", str(REPOSITORY)]
    status = subprocess.run(command, cwd=REPOSITORY, timeout=RUN_S, check=False).returncode
    if status == 0:
        print("javascript: 0 errors")
    return status


if __name__ == "__main__":
    sys.exit(main())
