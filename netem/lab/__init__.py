"""Labs: a whole cluster on one machine, every host with its own network and its own link.

`Lab` and `star` are what others use; the rest is how it is done.
"""

from netem.lab.lab import Lab, down
from netem.lab.messages import LinkState, State
from netem.lab.topology import Host, Topology, duplex_of, star, topology_of

__all__ = [
    "Host",
    "Lab",
    "LinkState",
    "State",
    "Topology",
    "down",
    "duplex_of",
    "star",
    "topology_of",
]
