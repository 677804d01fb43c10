"""A cluster that a run starts: core, web and workers as processes, on loopback or in a lab.

Promises that `close` leaves no process, and that every process that ended by
itself is known. Workers keep their names, and the core its data and its port,
over a crash.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import experiments
from experiments.errors import ProcessFailed
from experiments.events import Usage
from experiments.processes import Process
from experiments.scenario import Engine, Scenario

START_TIMEOUT_S: Final = 90.0
READY_TIMEOUT_S: Final = 150.0
SOURCE: Final = Path(experiments.__file__).resolve().parent.parent
MASTER: Final = "master"
# What a developer has set for himself must not reach a measurement.
_PRIVATE_PREFIX: Final = "LOOKOUT_"

Enter = Callable[[str, Sequence[str]], list[str]]
"""From a host and a command to the command that runs there."""


def here(host: str, argv: Sequence[str]) -> list[str]:
    """Every host is this machine."""
    del host
    return list(argv)


@dataclass(frozen=True, slots=True)
class Site:
    """Where the cluster stands: how to enter a host, and the address that servers listen on."""

    enter: Enter = here
    listen: str = "127.0.0.1"
    mark: Mapping[str, str] = field(default_factory=dict)


class Cluster:
    """Core, web and workers of one replicate in `folder`; `cache` outlives it."""

    def __init__(self, scenario: Scenario, folder: Path, cache: Path, site: Site) -> None:
        self.scenario = scenario
        self.data = folder / "data"
        self.workers: dict[int, Process] = {}
        self.url = ""
        self.core_port = 0
        self._folder = folder
        self._cache = cache
        self._site = site
        self._core: Process | None = None
        self._all: list[Process] = []
        self._before_s: dict[Process, float] = {}
        # An address of the kernel holds 107 bytes; a run's folder may be deeper than that.
        self._sockets = tempfile.TemporaryDirectory(prefix="lookout-exp-")
        self.join_at: dict[int, str] = {}

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Core and web, until both serve."""
        self.data.mkdir(parents=True, mode=0o700)
        token = self.data / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(24) + "\n", encoding="ascii")
        self.launch_core()
        self.await_core()
        web = self.spawn(
            "web",
            MASTER,
            *("-m", "webui", "--http", f"{self._site.listen}:0", "--core", self._socket),
            *("--token-file", str(token)),
        )
        http = str(web.announcement("web", START_TIMEOUT_S)["http"])
        self.url = http if http.startswith("http") else f"http://{http}"

    def launch_core(self) -> None:
        """Start the core, the first time or after its death."""
        core = self.scenario.cluster
        self._core = self.spawn(
            "core",
            MASTER,
            *("-m", "master", "core", "--data", str(self.data), "--web", self._socket),
            *("--listen", f"{self._site.listen}:{self.core_port}", *_model(core)),
            *("--heartbeat", str(core.heartbeat_s), "--lease-ttl", str(core.lease_ttl_s)),
        )

    def await_core(self) -> None:
        """Wait until the core serves; workers find it on the same port as before."""
        assert self._core is not None
        listen = str(self._core.announcement("core", START_TIMEOUT_S)["listen"])
        self.core_port = int(listen.rpartition(":")[2])

    def start_worker(self, number: int) -> None:
        """Worker `number`, the first time or again; it joins by itself."""
        spec = self.scenario.cluster
        address = self.join_at.get(number, f"{self._site.listen}:{self.core_port}")
        arguments = ["-m", "worker", "join", address, "--name", f"worker-{number}"]
        arguments += ["--token-file", str(self.data / "token"), "--cache", str(self._cache)]
        arguments += ["--slots", str(spec.slots)]
        env: dict[str, str] = {}
        if spec.engine is Engine.NULL:
            arguments += ["--engine", "null", "--enable-fault-hooks"]
            env["LOOKOUT_FAULTS"] = f"delay-ms={spec.service_ms:g}"
        else:
            # The worker's own choice of a precision is measured for a minute on a busy machine,
            # and may differ between two workers: a run compares what computes alike.
            arguments += ["--engine", "torch", "--precision", "fp32"]
            arguments += ["--threads", str(spec.threads)]
            arguments += ["--batch", str(spec.batch)]
        self.workers[number] = self.spawn(
            f"worker-{number}", f"worker-{number}", *arguments, env=env
        )

    def close(self) -> None:
        """End everything, the newest first."""
        for process in self._all:
            if process.alive:
                process.look()
        for process in reversed(self._all):
            process.end()
        self._sockets.cleanup()

    # --- for faults --------------------------------------------------------------------------

    def crash_core(self) -> None:
        """SIGKILL."""
        assert self._core is not None
        self._core.kill9()

    def crash_worker(self, number: int) -> None:
        """SIGKILL."""
        self.workers[number].kill9()

    def hang_worker(self, number: int) -> None:
        """SIGSTOP: its sockets stay open."""
        self.workers[number].signal(signal.SIGSTOP)

    def wake_worker(self, number: int) -> None:
        """SIGCONT."""
        self.workers[number].signal(signal.SIGCONT)

    # --- what a run asks -----------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise ProcessFailed if a process ended that nobody killed."""
        for process in self._all:
            if not process.alive and not process.killed and process.returncode != 0:
                raise ProcessFailed(process.failure())

    def look(self) -> None:
        """Note what every process used up to now."""
        for process in self._all:
            if process.alive:
                process.look()

    def count_from_now(self) -> None:
        """Leave out of `usage` what starting cost: imports take longer than a hundred images."""
        self.look()
        self._before_s = {process: process.usage.cpu_s for process in self._all}

    def usage(self) -> dict[str, Usage]:
        """CPU time of all processes of a role together, and the most memory that one had."""
        found: dict[str, Usage] = {}
        for process in self._all:
            role = process.name.rstrip("0123456789").rstrip("-")
            before = found.get(role, Usage(0.0, 0))
            found[role] = Usage(
                before.cpu_s + process.usage.cpu_s - self._before_s.get(process, 0.0),
                max(before.resident_bytes, process.usage.resident_bytes),
            )
        return found

    def spawn(
        self, name: str, host: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """`python ARGUMENTS` on a host."""
        process = Process(
            name,
            self._site.enter(host, [sys.executable, *arguments]),
            log_path=self._folder / f"{len(self._all):03d}-{name}.log",
            env=self._environment(env or {}),
            cwd=self._folder,
        )
        self._all.append(process)
        return process

    @property
    def _socket(self) -> str:
        return f"unix:{Path(self._sockets.name) / 'core.sock'}"

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE_PREFIX)}
        path = os.pathsep.join(filter(None, [str(SOURCE), kept.get("PYTHONPATH")]))
        return {**kept, "PYTHONPATH": path, **self._site.mark, **extra}


def _model(spec: Any) -> list[str]:
    """Flags that name the model; without any it is the one that ships with Lookout."""
    if not spec.model and not spec.weights:
        return ["--offline"]
    named = ["--model", spec.model] if spec.model else []
    weights = ["--weights", str(Path(spec.weights).expanduser().absolute())] if spec.weights else []
    return ["--offline", *named, *weights]
