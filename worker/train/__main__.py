"""`python -m worker.train DIR`."""

import sys

from worker.train.cli import main

sys.exit(main())
