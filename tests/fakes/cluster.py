"""A real cluster for integration tests: core, web and workers as processes of their own.

Nothing here is pretended: the commands are the ones that a user's machine runs,
on loopback, with every server on a port that the kernel chose. `stop` ends each
process by its id and then looks for survivors by a mark in their environment, so
that a process which outlives its parent is a failed test and not a leak.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.fakes.process import Process, ProcessFailed
from tests.fakes.weights import default_weights
from tests.shared import REPOSITORY, wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
# What most tests want of a worker: the same answers everywhere, and no time to choose an engine.
PLAIN_ENGINE = ("--engine=torch", "--precision=fp32")
_MARK = "LOOKOUT_TEST_CLUSTER"
# Left out of what the children inherit: a developer's own settings must not reach a test.
_PRIVATE_PREFIXES = ("LOOKOUT_",)


class Cluster:
    """Core + web + `workers` workers in `tmp_path`; a context manager.

    `engine` holds flags of every worker, `worker_args` more of those that it starts
    itself. `whole` starts one `master up` instead of the pieces. `bundled` gives it no
    weights and no network: it serves what ships with Lookout. `weights` None means
    the real ImageNet SqueezeNet where the shared data is, and random weights of
    the same architecture elsewhere.
    """

    def __init__(
        self,
        tmp_path: Path,
        *,
        workers: int = 2,
        model: str = "squeezenet1_1",
        weights: Path | None = None,
        worker_args: Sequence[str] = (),
        engine: Sequence[str] = PLAIN_ENGINE,
        master_args: Sequence[str] = (),
        web_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        web: bool = True,
        whole: bool = False,
        bundled: bool = False,
    ) -> None:
        self.root = tmp_path
        self.data = tmp_path / "data"
        self.processes: list[Process] = []
        self.workers: dict[str, Process] = {}
        self.core: Process | None = None
        self.web: Process | None = None
        self.url = ""
        self.core_address = ""
        self._initial_workers = workers
        self._model = model
        self._weights = weights
        self._engine_args = tuple(engine)
        self._worker_args = tuple(worker_args)
        self._master_args = tuple(master_args)
        self._web_args = tuple(web_args)
        self._extra_env = dict(env or {})
        self._with_web = web
        self._whole = whole
        self._bundled = bundled
        self._socket_folder = tempfile.TemporaryDirectory(prefix="lookout-")
        self._mark = secrets.token_hex(8)
        self._stopped = False

    # --- life ------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start everything, wait until core and web serve; workers may still be loading."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place_token()
        try:
            if self._whole:
                self._start_whole()
            else:
                self.start_core()
                if self._with_web:
                    self.start_web()
                for number in range(1, self._initial_workers + 1):
                    self.start_worker(f"w{number}")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process, then fail if one of them left a child behind. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self.processes:
            if process.alive:
                process.term()
                process.sigcont()
        for process in self.processes:
            process.finish(deadline)
        left = self._end_survivors()
        self._socket_folder.cleanup()
        if left and not any(process.killed for process in self.processes):
            raise AssertionError(f"processes outlived the ones that started them: {left}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- pieces ----------------------------------------------------------------------------

    def start_core(self) -> Process:
        """Start the core; a later one takes the port of the first, as workers expect."""
        self.core = self.spawn(
            "core",
            [
                *("-m", "master", "core", "--data", str(self.data)),
                *("--listen", self.core_address or "127.0.0.1:0"),
                *("--web", f"unix:{self.socket_path}"),
                *self.model_args(),
                *self._master_args,
            ],
        )
        said = self.core.announcement("core", timeout_s=START_TIMEOUT_S)
        self.core_address = str(said["listen"])
        return self.core

    def start_web(self) -> Process:
        """Start the web; a later one takes the port of the first."""
        http = self.url.removeprefix("http://") or "127.0.0.1:0"
        self.web = self.spawn(
            "web",
            [
                *("-m", "webui", "--http", http, "--core", f"unix:{self.socket_path}"),
                *("--token-file", str(self.token_file)),
                *self._web_args,
            ],
        )
        self.url = _as_url(self.web.announcement("web", timeout_s=START_TIMEOUT_S)["http"])
        return self.web

    def start_worker(
        self, name: str, *, env: Mapping[str, str] | None = None, args: Sequence[str] = ()
    ) -> Process:
        """Start one worker; it joins by itself. `name` may be used again after its end."""
        named = ("--name", name, "--token-file", str(self.token_file))
        flags = (*named, *self._engine_args, *self._worker_args, *args)
        return self.join(self.core_address, *flags, name=name, env=env)

    def join(
        self, *arguments: str, name: str = "worker", env: Mapping[str, str] | None = None
    ) -> Process:
        """`worker join` with just these arguments, as a person types it."""
        self.workers[name] = self.spawn(name, ["-m", "worker", "join", *arguments], env)
        return self.workers[name]

    def kill_core(self) -> None:
        """`kill -9` of the core."""
        assert self.core is not None
        self.core.kill9()

    def restart_core(self) -> Process:
        """A new core on the old data and the old port, after `kill_core`."""
        assert self.core is None or not self.core.alive
        return self.start_core()

    def run_master(self, *args: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run one `master` command to its end, in the cluster's environment."""
        return subprocess.run(
            [sys.executable, "-m", "master", *args],
            env=self._environment({}),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    # --- what a test asks --------------------------------------------------------------------

    @property
    def token_file(self) -> Path:
        """File with the join token."""
        return self.data / "token"

    @property
    def token(self) -> str:
        """The join token."""
        return self.token_file.read_text(encoding="ascii").strip()

    @property
    def socket_path(self) -> Path:
        """Unix socket between web and core, in a folder of its own: a path of pytest's
        may be longer than the 107 bytes that an address of the kernel holds."""
        return Path(self._socket_folder.name) / "core.sock"

    def client(self, timeout_s: float = 60.0) -> httpx.Client:
        """An HTTP client whose base is the API; the caller closes it."""
        return httpx.Client(base_url=f"{self.url}/api/v1", timeout=timeout_s, trust_env=False)

    def ready_workers(self) -> list[dict[str, Any]]:
        """Workers that are warm, alive and take work, as `GET /workers` shows them."""
        with self.client(timeout_s=10.0) as http:
            answer = http.get("/workers")
            answer.raise_for_status()
            workers = answer.json()["workers"]
        return [
            w
            for w in workers
            if w["ready"] and w["liveness"] == "alive" and w["admission"] == "accepting"
        ]

    def wait_ready(self, count: int | None = None, timeout_s: float = 90.0) -> None:
        """Wait until at least `count` workers (all that run, by default) take work.

        Raises:
            AssertionError: they don't within `timeout_s`, or a process ended meanwhile.
        """
        wanted = self._initial_workers if count is None else count

        def ready() -> bool:
            self._check_alive()
            with contextlib.suppress(httpx.HTTPError):
                return len(self.ready_workers()) >= wanted
            return False

        wait_until(ready, timeout_s, f"{wanted} workers to be ready")

    def logs(self) -> str:
        """Every log, each under its name, for a failed test's report."""
        return "\n".join(f"--- {p.log_path.name} (pid {p.pid})\n{p.log()}" for p in self.processes)

    # --- inside ------------------------------------------------------------------------------

    def _start_whole(self) -> None:
        up = self.spawn(
            "up",
            [
                *("-m", "master", "up", "--data", str(self.data)),
                *("--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"),
                *("--workers", str(self._initial_workers)),
                *(f"--worker-arg={flag}" for flag in self._engine_args),
                *self.model_args(),
                *self._master_args,
            ],
        )
        self.core = up
        # What a person reads is what the test reads: the page's address and the join line.
        self.url = up.wait_line(r"^\s*Lookout +(http://\S+?)/?$", timeout_s=START_TIMEOUT_S)[1]
        self.core_address = up.wait_line(r"worker join (\S+) --token", timeout_s=5.0)[1]

    def spawn(
        self, name: str, args: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Process:
        """Run `python ARGS` as one of the cluster's processes; its log lies in `root`."""
        number = len(self.processes)
        process = Process(
            name,
            [sys.executable, *args],
            log_path=self.root / f"{number:02d}-{name}.log",
            env=self._environment(env or {}),
            cwd=self.root,
        )
        self.processes.append(process)
        return process

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What children inherit, less a developer's settings; caches stay in `root`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE_PREFIXES)}
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.root / "home"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_DATA_HOME": str(self.root / "share"),
            "TORCH_HOME": str(self.root / "torch"),
            _MARK: self._mark,
        }
        return {**kept, **own, **self._extra_env, **extra}

    def _place_token(self) -> None:
        if not self.token_file.exists():
            self.token_file.touch(mode=0o600)
            self.token_file.write_text(secrets.token_urlsafe(24) + "\n", encoding="ascii")

    def model_args(self) -> list[str]:
        """Flags of the core that name the cluster's model and weights."""
        if self._bundled:
            return ["--offline"]
        if self._weights is None:
            self._weights = default_weights(self._model, self.root)
        return ["--model", self._model, "--weights", str(self._weights)]

    def _check_alive(self) -> None:
        expected = [p for p in (self.core, self.web, *self.workers.values()) if p is not None]
        for process in expected:
            if not process.alive and not process.killed:
                raise ProcessFailed(
                    f"{process.name} ended by itself ({process.returncode}):\n{process.log()}"
                )

    def _end_survivors(self) -> list[str]:
        left = []
        for survivor in _marked(self._mark):
            with contextlib.suppress(psutil.Error):
                left.append(f"{survivor.pid} {' '.join(survivor.cmdline())}")
                survivor.kill()
        return left


def _as_url(http: str) -> str:
    return http if http.startswith("http") else f"http://{http}"


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Live processes that inherited the cluster's mark, whoever their parent is now."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(_MARK) == mark:
                yield process
