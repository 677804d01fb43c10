"""`python -m worker.train DIR`."""

import sys

from worker.train.allocator import start_anew
from worker.train.cli import main

start_anew()
sys.exit(main())
