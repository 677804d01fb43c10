"""The thread that brings a model into memory: fetch, check, load, warm up.

Owns the order of these steps and the one model loaded last. What is wanted
last wins: a newer wish ends a fetch under way. Leaves to the agent what to do
with the outcome.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wire.card import Card
from wire.errors import ConnectionClosed, EnvironmentFault, LocalFault, PeerFault
from worker.engine import Engine
from worker.events import ModelFailed, ModelLoaded, Post
from worker.fetch import Fetcher
from worker.logs import event
from worker.pipeline import Served
from worker.preprocess import Preprocessor
from worker.weights import WeightsCache

log = logging.getLogger("lookout.worker.loader")


class Loader:
    """Answers every `want` with `ModelLoaded` or `ModelFailed` through `post`.

    It stays silent if the connection ends while it fetches: the master offers
    its model again after the next `Welcome`.
    """

    def __init__(
        self,
        cache: WeightsCache,
        fetcher: Fetcher,
        prepare: Callable[[Card, Path], Engine],
        post: Post,
        *,
        exact: bool = True,
    ) -> None:
        self._cache = cache
        self._fetcher = fetcher
        self._prepare = prepare
        self._exact = exact
        self._post = post
        self._news = threading.Condition()
        self._wanted: Card | None = None
        self._loaded: ModelLoaded | None = None
        self._served: Served | None = None
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def want(self, card: Card) -> None:
        """Load this model rather than any other; never blocks."""
        with self._news:
            self._wanted = card
            self._fetcher.give_up()
            self._news.notify()

    def take(self, card: Card) -> Served:
        """The model that `ModelLoaded` spoke of."""
        with self._news:
            if self._served is None or self._served.card != card:
                raise LocalFault(f"model {card.id} is not the one in memory")
            return self._served

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._wanted is not None)
                card, self._wanted = self._wanted, None
                self._fetcher.begin()
            assert card is not None
            self._answer(card)

    def _answer(self, card: Card) -> None:
        if self._loaded is not None and self._loaded.card == card:
            self._post(self._loaded)
            return
        try:
            self._post(self._load(card))
        except ConnectionClosed as lost:
            event(log, logging.INFO, "model_fetch_interrupted", model=card.id, reason=lost.reason)
        except (EnvironmentFault, PeerFault) as fault:
            self._post(ModelFailed(card, fault.code, fault.reason))
        except Exception as error:  # the edge of the thread; torch raises nearly anything
            log.exception("loading failed model=%s", card.id)
            self._post(ModelFailed(card, "load_failed", f"{type(error).__name__}: {error}"))

    def _load(self, card: Card) -> ModelLoaded:
        began_s = time.monotonic()
        path = self._cache.obtain(card, self._fetcher.chunks)
        fetched_s = time.monotonic()
        engine = self._prepare(card, path)
        served = Served(card, engine, Preprocessor(card.preprocessing, exact=self._exact))
        warm_s = time.monotonic()
        event(
            log,
            logging.INFO,
            "model_loaded",
            model=card.id,
            sha256=card.sha256[:12],
            engine=served.engine.describe(),
            fetch_ms=round((fetched_s - began_s) * 1000),
            load_ms=round((warm_s - fetched_s) * 1000),
        )
        loaded = ModelLoaded(card, served.engine.describe(), (warm_s - fetched_s) * 1000)
        with self._news:
            self._served, self._loaded = served, loaded
        return loaded
