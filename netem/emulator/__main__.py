"""`python -m netem.emulator CONFIG`: started by the keeper of a lab, never by a person."""

from __future__ import annotations

import sys

import msgspec

from netem.emulator.control import Config
from netem.emulator.process import run

if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Config))
