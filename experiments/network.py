"""The network of a replicate: loopback, with relays where messages are broken, or a lab.

Both promise the same verbs. Links are perfect while the cluster starts and joins
(the question is about serving, and not about fetching weights), bad from `spoil` to
`heal`, and gone after the `with`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

from experiments.cluster import Cluster, Site
from experiments.errors import BadScenario
from experiments.injector import Cuts
from experiments.relay import Counts, Relay
from experiments.scenario import FaultKind, Level, Message, Scenario
from experiments.schedule import Place
from experiments.seeds import Dimension, number, stream
from netem.errors import BadSpec
from netem.lab import Lab, duplex_of, star
from netem.spec import Duplex, LinkSpec

CLIENT: Final = "client-1"
PERFECT_MESSAGES: Final = Message()


class Network(Protocol):
    """What a replicate needs of it."""

    site: Site
    cuts: Cuts | None

    async def stand_between(self, cluster: Cluster) -> None:
        """Called when core and web serve and before workers join."""

    def url(self, cluster: Cluster) -> str:
        """Where the client reaches the web."""

    def on_assign(self, tell: Callable[[int], None]) -> None:
        """Tell of each job on its way to a worker, from now on."""

    def after_assigns(self, count: int, tell: Callable[[], None]) -> None:
        """Tell once, when `count` more jobs have been on their way and the next one is."""

    def spoil(self) -> None:
        """Make links as the scenario wants them."""

    def heal(self) -> dict[str, Any]:
        """Make links perfect; what was requested and what was observed."""

    async def close(self) -> None:
        """End what runs in the event loop."""


def network_for(scenario: Scenario, place: Place) -> AbstractContextManager[Network]:
    """The network that a scenario needs."""
    if scenario.level is Level.PACKET:
        return lab_network(scenario, place)
    return loopback(scenario, place)


# --- loopback ------------------------------------------------------------------------------


@contextmanager
def loopback(scenario: Scenario, place: Place) -> Iterator[Network]:
    """This machine; a relay before each worker and the web where the scenario needs one."""
    yield _Loopback(scenario, place)


def _needs_relays(scenario: Scenario) -> bool:
    faults = scenario.faults
    cuts = faults.per_minute > 0 and FaultKind.CUT in faults.kinds
    planned = any(fault.kind is FaultKind.CUT for fault in faults.timeline)
    killed = faults.failure_rate or faults.failure_rate_per_run
    return bool(scenario.level is Level.MESSAGE or cuts or planned or killed)


class _Loopback:
    def __init__(self, scenario: Scenario, place: Place) -> None:
        self.site = Site()
        self.cuts: Cuts | None = None
        self._scenario = scenario
        self._place = place
        self._relays: dict[int, Relay] = {}
        self._front: Relay | None = None
        self._front_port = 0
        self._tell: Callable[[int], None] | None = None
        self._countdown = -1
        self._at_zero: Callable[[], None] | None = None

    async def stand_between(self, cluster: Cluster) -> None:
        target = ("127.0.0.1", cluster.core_port)
        if _needs_relays(self._scenario):
            for worker in range(1, self._scenario.cluster.workers + 1):
                relay = self._relay(target, f"worker {worker}", worker)
                self._relays[worker] = relay
                cluster.join_at[worker] = f"127.0.0.1:{await relay.start()}"
            self.cuts = _RelayCuts(self._relays)
        if self._scenario.message.lost_replies:
            port = int(cluster.url.rpartition(":")[2])
            self._front = self._relay(("127.0.0.1", port), "client", None)
            self._front_port = await self._front.start()

    def url(self, cluster: Cluster) -> str:
        return f"http://127.0.0.1:{self._front_port}" if self._front is not None else cluster.url

    def on_assign(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def after_assigns(self, count: int, tell: Callable[[], None]) -> None:
        self._countdown, self._at_zero = count, tell

    def spoil(self) -> None:
        for relay in self._every():
            # What passed before met no faults: it would make the observed loss less.
            relay.counts = Counts()
            relay.faults = self._scenario.message

    def heal(self) -> dict[str, Any]:
        counts = [relay.counts for relay in self._relays.values()]
        for relay in self._every():
            relay.faults = PERFECT_MESSAGES
            relay.heal()
        found: dict[str, Any] = {"backend": "message" if self._relays else "none"}
        if self._front is not None:
            found |= {"replies": _shown(self._front.counts)}
        if tried := sum(count.messages + count.lost for count in counts):
            found |= {
                "messages": [_shown(count) for count in counts],
                "loss_requested": self._scenario.message.loss,
                "loss_observed": sum(count.lost for count in counts) / tried,
            }
        return found

    async def close(self) -> None:
        for relay in self._every():
            await relay.close()

    def _every(self) -> list[Relay]:
        return [*self._relays.values(), *([self._front] if self._front is not None else [])]

    def _relay(self, target: tuple[str, int], name: str, worker: int | None) -> Relay:
        place, seed = self._place, self._scenario.seed
        rng = stream(seed, Dimension.MESSAGES, place.point, place.replicate, name)
        told = None if worker is None else (lambda: self._assigned(worker))
        return Relay(target, PERFECT_MESSAGES, rng, framed=worker is not None, on_assign=told)

    def _assigned(self, worker: int) -> None:
        if self._tell is not None:
            self._tell(worker)
        if self._at_zero is not None:
            self._countdown -= 1
            if self._countdown < 0:
                tell, self._at_zero = self._at_zero, None
                tell()


class _RelayCuts:
    def __init__(self, relays: Mapping[int, Relay]) -> None:
        self._relays = relays

    def cut(self, worker: int) -> None:
        self._relays[worker].cut()

    def heal(self, worker: int) -> None:
        self._relays[worker].heal()


def _shown(counts: Counts) -> dict[str, int]:
    return {"messages": counts.messages, "lost": counts.lost, "bytes": counts.bytes}


# --- lab -----------------------------------------------------------------------------------


@contextmanager
def lab_network(scenario: Scenario, place: Place) -> Iterator[Network]:
    """Namespaces with links of their own; they go with this process, however it ends."""
    seed = number(scenario.seed, Dimension.LINKS, place.point, place.replicate)
    links = _wanted(scenario, seed)
    topology = star(
        f"exp-{os.getpid()}-{secrets.token_hex(3)}",
        workers=scenario.cluster.workers,
        clients=1,
        backend=scenario.links.backend,
    )
    with Lab.up(topology) as lab:
        yield _InLab(lab, links)


def _wanted(scenario: Scenario, seed: int) -> dict[str, Duplex]:
    """The LinkSpecs by host, each with a seed of its own.

    Raises:
        BadScenario: a table is no LinkSpec.
    """
    hosts = {f"worker-{n}": scenario.links.worker for n in range(1, scenario.cluster.workers + 1)}
    try:
        given = {host: duplex_of(table) for host, table in hosts.items() if table}
        if scenario.links.client:
            given[CLIENT] = duplex_of(scenario.links.client)
    except BadSpec as error:
        raise BadScenario(f"{scenario.name}: links: {error}") from None
    return {
        host: Duplex(
            egress=_seeded(duplex.egress, seed + 2 * index),
            ingress=_seeded(duplex.ingress, seed + 2 * index + 1),
        )
        for index, (host, duplex) in enumerate(given.items())
    }


def _seeded(spec: LinkSpec, seed: int) -> LinkSpec:
    """The same with a seed, unless the scenario gave one or nothing is left to chance."""
    return spec if spec.seed or spec.is_perfect else replace(spec, seed=seed)


class _InLab:
    def __init__(self, lab: Lab, links: dict[str, Duplex]) -> None:
        self._lab = lab
        self._links = links
        self.site = Site(enter=lab.command, listen=lab.address("master"))
        self.cuts: Cuts | None = _LabCuts(lab)

    async def stand_between(self, cluster: Cluster) -> None:
        del cluster  # the links are there already

    def url(self, cluster: Cluster) -> str:
        return cluster.url

    def on_assign(self, tell: Callable[[int], None]) -> None:
        raise BadScenario('failure_rate needs level "none" or "message": use per_minute in a lab')

    def after_assigns(self, count: int, tell: Callable[[], None]) -> None:
        raise BadScenario('failure_rate_per_run needs level "none" or "message"')

    def spoil(self) -> None:
        for host, link in self._links.items():
            self._lab.set(host, link)

    def heal(self) -> dict[str, Any]:
        status = self._lab.status()
        found: dict[str, Any] = {"backend": self._lab.record.backend, "links": {}}
        worst = max((_loss(link) for link in self._links.values()), default=0.0)
        offered = dropped = 0
        for host, link in self._links.items():
            reading = status[host].reading
            directions = {"egress": reading.egress, "ingress": reading.ingress}
            found["links"][host] = {
                name: {
                    "requested": str(getattr(link, name)),
                    "delivered_packets": direction.counters.delivered_packets,
                    "delivered_bytes": direction.counters.delivered_bytes,
                    "dropped_packets": direction.counters.dropped_packets,
                    "observed_loss": direction.counters.observed_loss,
                }
                for name, direction in directions.items()
            }
            if _loss(link) == worst:
                offered += sum(d.counters.offered_packets for d in directions.values())
                dropped += sum(d.counters.dropped_packets for d in directions.values())
            self._lab.set(host, Duplex())
        if offered:
            found |= {"loss_requested": worst, "loss_observed": dropped / offered}
        return found

    async def close(self) -> None:
        return None


class _LabCuts:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def cut(self, worker: int) -> None:
        self._lab.cut(f"worker-{worker}")

    def heal(self, worker: int) -> None:
        self._lab.heal(f"worker-{worker}")


def _loss(link: Duplex) -> float:
    return (link.egress.mean_loss + link.ingress.mean_loss) / 2
