"""A whole run: every place of a scenario in its randomised block, kept one by one.

Promises that an interrupted run goes on where it was, that what was measured is
never measured again, and that a broken promise of the service fails the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from experiments.errors import ExperimentError, HistoryBroken
from experiments.folder import Kept, RunFolder
from experiments.replicate import Found, Replicate
from experiments.scenario_file import Point, points
from experiments.schedule import Place, blocks

SHOWN_VIOLATIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is: `done` of `total` replicates, and what the present one says."""

    done: int
    total: int
    place: Place
    ended_images: int
    eta_s: float | None


class Runner:
    """Carries out one run in its folder."""

    def __init__(self, folder: RunFolder, on_step: Callable[[Step], None]) -> None:
        self._folder = folder
        self._on_step = on_step
        self._manifest = folder.manifest()
        self._points = {point.label: point for point in points(self._manifest.scenario)}
        self._took_s: list[float] = []

    def places(self) -> list[Place]:
        """All of the run, in their order."""
        replicates = next(iter(self._points.values())).scenario.stop.replicates
        return blocks(list(self._points), replicates, self._manifest.seed)

    def run(self) -> None:
        """Everything that is not done yet.

        Raises:
            HistoryBroken: a replicate broke a promise; its evidence is kept.
            ProcessFailed: a process failed that nobody broke.
        """
        every = self.places()
        finished = self._folder.finished()
        left = [place for place in every if place.name not in finished]
        for index, place in enumerate(left):
            done = len(every) - len(left) + index
            began_s = time.monotonic()
            self._one(place, done, len(every))
            self._took_s.append(time.monotonic() - began_s)
        for kept in self._folder.replicates():
            _judge(kept)

    def _one(self, place: Place, done: int, total: int) -> None:
        point = self._points[place.point]
        work = self._folder.work(place.name)

        def tell(progress: dict[str, Any]) -> None:
            self._on_step(
                Step(done, total, place, int(progress.get("ended", 0)), self._eta_s(total - done))
            )

        tell({})
        replicate = Replicate(
            self._scenario(point),
            place,
            work,
            (self._folder.path / "work" / "cache").absolute(),
            self._manifest.reference,
            tell,
        )
        failed = True
        try:
            found = replicate.run()
            failed = bool(found.violations)
            self._learn(found)
            _judge(self._folder.keep(found))
        finally:
            self._folder.tidy(place.name, failed=failed)

    def _scenario(self, point: Point) -> Any:
        return msgspec.structs.replace(point.scenario, seed=self._manifest.seed)

    def _learn(self, found: Found) -> None:
        """What only a running cluster tells; later replicates must tell the same.

        Raises:
            ExperimentError: the model is another one than in the replicates before.
        """
        sha256, known = str(found.model.get("sha256", "")), self._manifest.weights_sha256
        if known and sha256 != known:
            raise ExperimentError(
                f"the model's weights were {known[:12]} before and are {sha256[:12]} now: "
                "start a new run"
            )
        if not known:
            self._manifest = msgspec.structs.replace(
                self._manifest,
                weights_sha256=sha256,
                model=str(found.model.get("id", "")),
                backend=str(found.network.get("backend", "")),
                reference=found.reference,
            )
            self._folder.write_manifest(self._manifest)

    def _eta_s(self, left: int) -> float | None:
        if not self._took_s:
            return None
        return left * sum(self._took_s) / len(self._took_s)


def _judge(kept: Kept) -> None:
    if kept.violations:
        shown = "\n  ".join(kept.violations[:SHOWN_VIOLATIONS])
        raise HistoryBroken(
            f"{kept.point}, replicate {kept.replicate}: {len(kept.violations)} promises were "
            f"broken:\n  {shown}"
        )
