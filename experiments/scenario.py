"""What a scenario says: cluster, links, load, faults, and when it is enough.

Pure data. Promises that a scenario which exists can be run; `scenario_file`
reads one. Times are seconds, probabilities fractions.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from experiments.errors import BadScenario
from experiments.seeds import SEED_MAX

WORKERS_MAX: Final = 64
POINTS_MAX: Final = 200

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=7 * 86_400)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=7 * 86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a scenario file."""


class Level(enum.StrEnum):
    """Where links are made bad: not at all, at whole messages, or at packets of a lab."""

    NONE = "none"
    MESSAGE = "message"
    PACKET = "packet"


class Engine(enum.StrEnum):
    """What answers: a real network, or one that only takes time (the network is the subject)."""

    TORCH = "torch"
    NULL = "null"


class Arrivals(enum.StrEnum):
    """`closed`: the next image when one ends. The others come whatever the service does."""

    CLOSED = "closed"
    POISSON = "poisson"
    BURSTS = "bursts"


class FaultKind(enum.StrEnum):
    """What goes wrong. `crash` is SIGKILL and a new start, `hang` SIGSTOP and SIGCONT."""

    CRASH = "crash"
    HANG = "hang"
    SLOW = "slow"
    CUT = "cut"
    CORE_CRASH = "core-crash"


class Cluster(Part, frozen=True, kw_only=True):
    """The machines: `service_ms` is how long the null engine takes for an image.

    `batch` 1 gives each image its own forward pass, as the published systems do.
    """

    workers: Annotated[int, msgspec.Meta(ge=1, le=WORKERS_MAX)] = 3
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    engine: Engine = Engine.TORCH
    model: str = ""
    weights: str = ""
    service_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 0.0
    heartbeat_s: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.5
    lease_ttl_s: Annotated[float, msgspec.Meta(ge=0.15, le=3600)] = 15.0


class Images(Part, frozen=True, kw_only=True):
    """What is classified: a folder with `labels.csv` (file,class_id,…), or generated pictures."""

    folder: str = ""
    count: Count = 32
    size_px: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 224


class Load(Part, frozen=True, kw_only=True):
    """Who asks, and how fast. `concurrency` bounds the images under way in every kind."""

    kind: Arrivals = Arrivals.CLOSED
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    rate_per_s: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 10.0
    burst_images: Count = 20


class Client(Part, frozen=True, kw_only=True):
    """The client's patience: how long one request waits, its silence limit, a call's deadline.

    `deadline_s` 0 means none. `wait_s` small makes the client hear of the acceptance early.
    """

    wait_s: Positive = 30.0
    silent_s: Positive = 90.0
    deadline_s: Seconds = 0.0
    patience_s: Positive = 600.0


class Message(Part, frozen=True, kw_only=True):
    """Faults of whole messages, as applications inject them.

    Between worker and master: a job's message is lost with `loss`, which costs
    `timeout_s` and a new try; each that arrives waits `delay_s` first, one after the
    other. Between client and master: a reply is lost with `lost_replies`.
    """

    loss: Annotated[float, msgspec.Meta(ge=0, le=0.99)] = 0.0
    timeout_s: Positive = 5.0
    delay_s: Seconds = 0.0
    lost_replies: Annotated[float, msgspec.Meta(ge=0, le=0.99)] = 0.0


class Links(Part, frozen=True, kw_only=True):
    """Links as packets see them; each table is a LinkSpec (`netem`), for both directions or
    with `egress` and `ingress` inside. `worker` is every worker's, `client` the client's."""

    worker: dict[str, Any] = {}
    client: dict[str, Any] = {}
    backend: str = "auto"


class Fault(Part, frozen=True, kw_only=True):
    """One fault of a timeline: `at_s` after the load began, for `for_s` (hang, slow, cut)."""

    at_s: Seconds
    kind: FaultKind
    worker: Annotated[int, msgspec.Meta(ge=1, le=WORKERS_MAX)] = 1
    for_s: Seconds = 2.0


class Faults(Part, frozen=True, kw_only=True):
    """What breaks: a `timeline`, and chance.

    `per_minute` draws faults of `kinds` as a Poisson process; each lasts a time that is
    uniform between `shortest_s` and `longest_s`. With `failure_rate` a worker is killed
    with that probability for each job that it is given; with `failure_rate_per_run` one
    worker is killed once in a replicate. A killed process starts again after `restart_s`.
    `dead_at_once` bounds the workers that are down together.
    """

    timeline: tuple[Fault, ...] = ()
    per_minute: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0
    kinds: tuple[FaultKind, ...] = (FaultKind.CRASH,)
    shortest_s: Seconds = 0.5
    longest_s: Seconds = 3.0
    restart_s: Seconds = 0.2
    failure_rate: Fraction = 0.0
    failure_rate_per_run: Fraction = 0.0
    dead_at_once: Annotated[int, msgspec.Meta(ge=1, le=WORKERS_MAX)] = 1


class Stop(Part, frozen=True, kw_only=True):
    """When a replicate is enough: both minimums hold, or `longest_s` passed.

    What began in the first `warmup_s`, and the first `warmup_images`, is not counted.
    """

    replicates: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    warmup_s: Seconds = 0.0
    warmup_images: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    minimum_s: Seconds = 0.0
    minimum_images: Count = 100
    longest_s: Positive = 120.0


class Sweep(Part, frozen=True, kw_only=True):
    """One axis: the field, as `table.field`, and its values. `label` is the axis's text."""

    field: str
    values: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=POINTS_MAX)]
    label: str = ""


class Published(Part, frozen=True, kw_only=True):
    """The table of others that the run stands beside: a file of `published/`, and its column."""

    table: str
    column: str


class Scenario(Part, frozen=True, kw_only=True):
    """A whole scenario. `metric` is what its picture shows."""

    name: str
    title: str
    question: str = ""
    metric: str = "goodput_per_s"
    seed: Annotated[int, msgspec.Meta(ge=0, le=SEED_MAX)] = 1
    level: Level = Level.NONE
    cluster: Cluster = Cluster()
    images: Images = Images()
    load: Load = Load()
    client: Client = Client()
    message: Message = Message()
    links: Links = Links()
    faults: Faults = Faults()
    stop: Stop = Stop()
    sweep: Sweep | None = None
    published: Published | None = None

    def __post_init__(self) -> None:
        for fault in self.faults.timeline:
            if fault.worker > self.cluster.workers and fault.kind is not FaultKind.CORE_CRASH:
                raise BadScenario(
                    f"{self.name}: a fault at {fault.at_s:g} s is for worker {fault.worker}: "
                    f"give 1 to {self.cluster.workers}"
                )
        _check_levels(self)
        if self.faults.longest_s < self.faults.shortest_s:
            raise BadScenario(
                f"{self.name}: faults last from {self.faults.shortest_s:g} to "
                f"{self.faults.longest_s:g} s: the second must not be less"
            )
        if self.cluster.lease_ttl_s < 3 * self.cluster.heartbeat_s:
            raise BadScenario(
                f"{self.name}: lease_ttl_s = {self.cluster.lease_ttl_s:g}: give at least three "
                f"heartbeats ({3 * self.cluster.heartbeat_s:g} s)"
            )


def _check_levels(scenario: Scenario) -> None:
    """A link that no level carries out would be a result about nothing."""
    message = scenario.message
    if scenario.level is not Level.MESSAGE and (message.loss or message.delay_s):
        raise BadScenario(f'{scenario.name}: [message] needs level = "message"')
    if scenario.level is not Level.PACKET and (scenario.links.worker or scenario.links.client):
        raise BadScenario(f'{scenario.name}: [links] needs level = "packet"')
    if scenario.cluster.service_ms and scenario.cluster.engine is not Engine.NULL:
        raise BadScenario(f'{scenario.name}: service_ms needs engine = "null"')
