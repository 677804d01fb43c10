"""The ASGI application in front of Flask.

Answers in the event loop what takes images, waits or streams, so that a
thousand idle event streams and slow uploads hold no thread; everything else
goes to Flask through `webui.bridge`. Checks `Host` and `Origin` of every
request, and turns every `Problem` into its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from werkzeug.exceptions import HTTPException

from webui import addresses, chunks, hosts, parameters
from webui.api import NATIVE, LookoutFlask, make_app
from webui.bridge import Bridge
from webui.config import Config
from webui.core import Core
from webui.exchange import Budget, Disconnected, Exchange, Receive, Scope, Send, Stalls
from webui.exports import Exports
from webui.fetch import Fetcher, allow_any
from webui.hub import Hub
from webui.pages import SECURITY_HEADERS
from webui.problems import Problem
from webui.submit import Submitting
from wire import messages

log = logging.getLogger("webui.gateway")

Handler = Callable[..., Awaitable[None]]
READY_CALL_S = 2.0


class Gateway:
    """One web process."""

    def __init__(
        self, config: Config, core: Core, on_start: Callable[[], None] = lambda: None
    ) -> None:
        limits = config.limits
        self._on_start = on_start
        self._config = config
        self._core = core
        self._budget = Budget(limits.memory_bytes)
        self._stalls = Stalls()
        self._hub = Hub(core, limits)
        self._names = hosts.own_names() | {name.lower() for name in config.allow_hosts}
        self.flask: LookoutFlask = make_app(config, core)
        self._bridge = Bridge(self.flask.wsgi_app, limits)
        self._urls = self.flask.url_map.bind("localhost")
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        fetcher = Fetcher(limits, refusal=_refusal_of(config))
        self._handlers = self._native_handlers(fetcher)
        # Most requests are uploads: their route is looked up without werkzeug's matcher.
        self._direct = {("POST", "/api/v1/jobs"): self._handlers["post_jobs"]}

    def _native_handlers(self, fetcher: Fetcher) -> dict[str, Handler]:
        limits = self._config.limits
        submitting = Submitting(self._core, limits, self._budget, fetcher)
        exports = Exports(self._core, limits)
        handlers: dict[str, Handler] = {
            "post_jobs": submitting.post_jobs,
            "get_job": submitting.get_job,
            "classify": submitting.classify,
            "events": self._events,
            "results_csv": exports.csv,
            "results_json": exports.json,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
        }
        assert set(handlers) == {endpoint for _, _, endpoint in NATIVE}
        return handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the process."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(
                Exchange(
                    scope,
                    receive,
                    _hardened(send),
                    self._config.limits,
                    self._budget,
                    self._stalls,
                )
            )

    # --- life -----------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._on_start()
        self._core.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._drain()
        self._core.close()
        self._bridge.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _drain(self) -> None:
        """End the streams, let what is in flight finish."""
        self._hub.close()
        try:
            async with asyncio.timeout(self._config.drain_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests didn't finish in time", self._in_flight)

    # --- one request ----------------------------------------------------------------------

    async def _serve(self, exchange: Exchange) -> None:
        self._in_flight += 1
        self._idle.clear()
        try:
            await self._dispatch(exchange)
        except Problem as problem:
            await self._answer(exchange, problem)
        except Disconnected:
            log.debug("%s %s: the client went away", exchange.method, exchange.path)
        except Exception:  # the edge of one request: a bug in it costs no other
            log.exception("%s %s failed", exchange.method, exchange.path)
            bug = Problem("internal_error", "the log of the web process says more")
            await self._answer(exchange, bug)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _dispatch(self, exchange: Exchange) -> None:
        hosts.check_host(exchange.headers.get("host"), self._names)
        hosts.check_origin(
            exchange.method, exchange.headers, guard_reads=exchange.path == "/api/v1/classify"
        )
        handler, arguments = self._route(exchange)
        await handler(exchange, **arguments)

    def _route(self, exchange: Exchange) -> tuple[Handler, dict[str, Any]]:
        direct = self._direct.get((exchange.method, exchange.path))
        if direct is not None:
            return direct, {}
        try:
            endpoint, arguments = self._urls.match(exchange.path, exchange.method)
        except HTTPException:
            return self._bridge, {}  # Flask says it better
        handler = self._handlers.get(endpoint)
        return (handler, dict(arguments)) if handler else (self._bridge, {})

    async def _answer(self, exchange: Exchange, problem: Problem) -> None:
        if problem.status >= 500:
            log.warning("%s %s: %s", exchange.method, exchange.path, problem)
        try:
            await exchange.respond_problem(problem)
        except Disconnected:
            log.debug("%s %s: the client went away", exchange.method, exchange.path)

    # --- the handlers that are neither submitting nor exporting -----------------------------

    async def _events(self, exchange: Exchange) -> None:
        if not parameters.accepts(exchange.headers.get("accept"), "text/event-stream"):
            raise Problem("not_acceptable", "the answer is text/event-stream")
        after = exchange.headers.get("last-event-id") or parameters.last(exchange.query, "after")
        gzip = chunks.takes_gzip(exchange.headers.get("accept-encoding"))
        client = self._hub.join(after, gzip=gzip)
        gone = asyncio.ensure_future(exchange.disconnected())
        gone.add_done_callback(lambda _: client.close())
        headers = [
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
            ("Vary", "Accept-Encoding"),
            *([("Content-Encoding", "gzip")] if gzip else []),
        ]
        try:
            await exchange.start(200, headers)
            if exchange.method == "HEAD":
                client.close()
            while (chunk := await client.next(self._config.limits.sse_heartbeat_s)) is not None:
                await exchange.write(chunk)
            await exchange.write(client.ending, more=False)
        finally:
            self._hub.leave(client)
            gone.cancel()

    async def _healthz(self, exchange: Exchange) -> None:
        await exchange.respond_json(200, {"status": "ok", "core": self._core.connected})

    async def _readyz(self, exchange: Exchange) -> None:
        stats = await self._core.ask(messages.GetStats(request=0), messages.Stats, READY_CALL_S)
        if stats.draining:
            raise Problem("draining", "the master is shutting down")
        if stats.storage_fault is not None:
            raise Problem("storage_failed", stats.storage_fault)
        if stats.workers_ready == 0:
            raise Problem("not_ready", "no worker has passed its warm-up", retry_after_s=2)
        await exchange.respond_json(200, {"status": "ready", "workers_ready": stats.workers_ready})

    async def _metrics(self, exchange: Exchange) -> None:
        reply = await self._core.ask(
            messages.GetMetrics(request=0), messages.Metrics, self._config.limits.core_call_s
        )
        text = reply.text.rstrip("\n") + "\n" + self._own_metrics()
        headers = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")]
        await exchange.respond(200, headers, text.encode())

    def _own_metrics(self) -> str:
        gauges = {
            "lookout_web_event_streams": ("Open event streams.", self._hub.clients),
            "lookout_web_requests_in_flight": ("Requests being answered.", self._in_flight),
            "lookout_web_body_bytes": ("Bytes of bodies held.", self._budget.held),
        }
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"
            for name, (text, value) in gauges.items()
        )


def _refusal_of(config: Config) -> Callable[[str], str | None]:
    return allow_any if config.allow_private_urls else addresses.refusal


_SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


def _hardened(send: Send) -> Send:
    """Add the security headers to every answer that doesn't bring its own."""

    def sending(message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] += [pair for pair in _SECURITY if pair[0] not in present]
        return send(message)

    return sending
