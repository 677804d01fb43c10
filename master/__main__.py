"""`python -m master`: the same as the command `master`."""

import sys

from master.cli import main

sys.exit(main())
