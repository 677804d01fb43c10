"""A real cluster on bad links: master and workers in namespaces, each worker on its own link.

    worker-1 ══ 10.7.1.0/30 ══╗
    worker-2 ══ 10.7.2.0/30 ══╬═ master
    …                         ╝

`Links` needs root and a kernel with `sch_netem`: run it inside `tests.netem_root.uml`.
`LabLinks` is a lab of `netem` with the same hosts, on any kernel that can have one.
Loss, delay and rate hold for both directions of a link.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from netem.grammar import parse
from netem.lab import Lab, star
from netem.spec import Duplex
from tests.fakes.cluster import Cluster
from tests.fakes.process import Process
from tests.netem_root.labs import lab_name
from tests.shared import make_jpeg
from wire import blocking
from wire import messages as m
from wire.address import UnixAddress

PORT: Final = 6550
IMAGE_BYTES: Final = 100_000
SUBMIT_IMAGES: Final = 16
FEED_INTERVAL_S: Final = 0.1
NULL_ENGINE: Final = ("--engine", "null", "--enable-fault-hooks")


@dataclass(frozen=True)
class Conditions:
    """What both directions of a link do to packets."""

    loss_percent: float = 0.0
    delay_ms: float = 5.0
    rate_mbit: float = 100.0

    @property
    def limit(self) -> int:
        """Packets in the queue: what the rate carries in 0.1 s, and what is on its way."""
        return max(1000, int(self.rate_mbit * 1e6 / 8 / 1500 / 10 + self.delay_ms * 10))

    def netem(self) -> list[str]:
        """Arguments of `tc qdisc … netem`."""
        loss = ["loss", f"{self.loss_percent}%"] if self.loss_percent else []
        return [
            *("delay", f"{self.delay_ms}ms", *loss),
            *("rate", f"{self.rate_mbit}mbit", "limit", str(self.limit)),
        ]

    def duplex(self) -> Duplex:
        """The same as LinkSpecs."""
        text = f"loss={self.loss_percent}% delay={self.delay_ms}ms rate={self.rate_mbit}mbit"
        return Duplex.both(parse(f"{text} limit={self.limit}"))


CUT: Final = Conditions(loss_percent=100.0)


def sh(*argv: str) -> None:
    """Run one command; raises with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Star(Protocol):
    """The hosts `master` and `worker-N`, and the link of each worker."""

    count: int

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]:
        """`argv` as it runs in a host."""

    def master_address(self, number: int) -> str:
        """Where worker `number` finds the master."""

    def set_all(self, conditions: Conditions) -> None:
        """From now on packets of all links fare so."""

    def close(self) -> None:
        """Remove all of it."""


class LabLinks:
    """As `Star` says, in a lab of this machine."""

    def __init__(self, workers: int) -> None:
        self.count = workers
        self._lab = Lab.up(star(lab_name("star"), workers=workers))

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]:
        return self._lab.command(host, argv)

    def master_address(self, number: int) -> str:
        del number
        return self._lab.address("master")

    def set_all(self, conditions: Conditions) -> None:
        for number in range(1, self.count + 1):
            self._lab.set(f"worker-{number}", conditions.duplex())

    def close(self) -> None:
        self._lab.down()


class Links:
    """As `Star` says: namespaces, and a link of its own between each worker and the master."""

    def __init__(self, workers: int) -> None:
        self.count = workers
        sh("ip", "netns", "add", "master")
        sh("ip", "-n", "master", "link", "set", "lo", "up")
        for number in range(1, workers + 1):
            host = f"worker-{number}"
            sh("ip", "netns", "add", host)
            sh(
                *("ip", "link", "add", f"m{number}", "netns", "master", "type", "veth"),
                *("peer", "name", "up0", "netns", host),
            )
            self._address("master", f"m{number}", f"10.7.{number}.1/30")
            self._address(host, "up0", f"10.7.{number}.2/30")
            sh("ip", "-n", host, "link", "set", "lo", "up")

    @staticmethod
    def _address(host: str, device: str, address: str) -> None:
        sh("ip", "-n", host, "address", "add", address, "dev", device)
        sh("ip", "-n", host, "link", "set", "dev", device, "up")
        # What a wire loses is a packet, and not the 64 kB that a veth passes on as one.
        in_host = ("ip", "netns", "exec", host)
        sh(*in_host, "ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off")
        sh("ip", "-n", host, "link", "set", "dev", device, "gso_max_segs", "1")

    def command(self, host: str, argv: Sequence[str]) -> Sequence[str]:
        return ["ip", "netns", "exec", host, *argv]

    def master_address(self, number: int) -> str:
        return f"10.7.{number}.1"

    def set(self, number: int, conditions: Conditions) -> None:
        """From now on packets of this worker's link fare so."""
        netem = conditions.netem()
        for host, device in (("master", f"m{number}"), (f"worker-{number}", "up0")):
            sh("tc", "-n", host, "qdisc", "replace", "dev", device, "root", "netem", *netem)

    def set_all(self, conditions: Conditions) -> None:
        """All links alike."""
        for number in range(1, self.count + 1):
            self.set(number, conditions)

    def close(self) -> None:
        """Remove the namespaces, and with them the links."""
        for number in range(1, self.count + 1):
            sh("ip", "netns", "del", f"worker-{number}")
        sh("ip", "netns", "del", "master")


class StarCluster(Cluster):
    """Core in `master`, `worker-N` in the namespace of that name; no web."""

    def __init__(self, tmp_path: Path, links: Star, worker_args: Sequence[str] = ()) -> None:
        super().__init__(tmp_path, workers=0, web=False, worker_args=[*NULL_ENGINE, *worker_args])
        self.links = links
        self.core_address = f"0.0.0.0:{PORT}"

    def start_workers(self) -> None:
        """One on each link; they join by themselves."""
        for number in range(1, self.links.count + 1):
            name, address = f"worker-{number}", f"{self.links.master_address(number)}:{PORT}"
            flags = ("--name", name, "--token-file", str(self.token_file), *self._worker_args)
            self.join(address, *flags, name=name)

    def spawn(
        self, name: str, args: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Process:
        host = "master" if name == "core" else name
        process = Process(
            name,
            list(self.links.command(host, [sys.executable, *args])),
            log_path=self.root / f"{len(self.processes):02d}-{name}.log",
            env=self._environment(env or {}),
            cwd=self.root,
        )
        self.processes.append(process)
        return process


class Client:
    """A client of the core over its Unix socket, which no link touches; any thread may ask."""

    def __init__(self, cluster: StarCluster) -> None:
        hello = m.Hello(versions=[m.VERSION], role="admin", name="feeder", incarnation="1")
        address = UnixAddress(str(cluster.socket_path))
        self._connection = blocking.connect(address, cluster.token, hello)
        self._image = make_jpeg(1, (64, 64)).ljust(IMAGE_BYTES, b"\0")
        self._lock = threading.Lock()
        self.submitted = 0

    def _ask(self, message: m.Message) -> m.Message:
        with self._lock:
            self._connection.send(message)
            answer = self._connection.receive(timeout_s=60.0)
        assert answer is not None, f"no answer to {message!r:.100} within 60 s"
        assert not isinstance(answer, (m.Refused, m.ProtocolFault)), answer
        return answer

    def stats(self) -> m.Stats:
        """Counts and counters of the core."""
        answer = self._ask(m.GetStats(request=1))
        assert isinstance(answer, m.Stats)
        return answer

    def workers(self) -> dict[str, m.WorkerView]:
        """The cluster by name."""
        answer = self._ask(m.GetWorkers(request=1))
        assert isinstance(answer, m.Workers)
        return {worker.name: worker for worker in answer.workers}

    def ready(self) -> int:
        """Workers that are alive and take jobs."""
        return sum(w.ready and w.liveness == "alive" for w in self.workers().values())

    def ended(self) -> int:
        """Jobs that succeeded so far."""
        return self.stats().counts.get("succeeded", 0)

    def open_jobs(self) -> int:
        """Jobs without an outcome."""
        counts = self.stats().counts
        return sum(counts.get(state, 0) for state in ("queued", "leased", "backoff"))

    def submit(self, images: int) -> None:
        """So many images more, durable when this returns."""
        upload = m.Upload(name="x.jpg", media_type="image/jpeg", data=self._image)
        self._ask(m.Submit(request=1, images=[upload] * images))
        self.submitted += images

    def fill(self, waiting: int) -> None:
        """Submit until so many wait."""
        while self.open_jobs() < waiting:
            self.submit(SUBMIT_IMAGES)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Feeder:
    """Keeps jobs waiting, from a thread of its own, while the context lasts."""

    def __init__(self, client: Client, waiting: int) -> None:
        self._client = client
        self._waiting = waiting
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stopped.wait(FEED_INTERVAL_S):
                while self._client.open_jobs() < self._waiting and not self._stopped.is_set():
                    self._client.submit(SUBMIT_IMAGES)
        except BaseException as error:  # told to whoever leaves the context
            self._error = error

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def wait_for(what: str, met: Callable[[], bool], timeout_s: float) -> float:
    """Wait until `met()` holds; returns for how long it did not, in seconds."""
    begun = time.monotonic()
    while not met():
        if time.monotonic() - begun > timeout_s:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun
