"""`python -m worker` is the command `worker`."""

import sys

from worker.cli import main

sys.exit(main())
