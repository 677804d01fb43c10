"""The cache of weights files on this machine, by SHA-256, shared by its workers.

A file is fetched under a lock, into `<sha256>.part`, which a broken connection
leaves behind to be resumed; once its hash is right it is renamed to
`<sha256>.weights`. A file found in the cache is hashed before it is used, and
fetched again if it was damaged. The files used least recently go when there are
more than `FILES_MAX`. Where chunks come from is the caller's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from wire.card import Card
from wire.errors import EnvironmentFault

FILES_MAX = 8
WEIGHTS_BYTES_MAX = 8 * 2**30

Source = Callable[[Card, int], Iterator[bytes]]
"""Yields the file of a card from an offset to its end, in order, in chunks of any size."""


class WeightsCache:
    """Weights files in one folder. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, card: Card, source: Source) -> Path:
        """Return the file of this card, fetching whatever is missing of it.

        Raises `EnvironmentFault`: `disk_full`, `cache_unwritable`,
        `weights_too_large`, `weights_mismatch`; and whatever `source` raises,
        after which a later call goes on where this one stopped.
        """
        if card.size_bytes > WEIGHTS_BYTES_MAX:
            raise EnvironmentFault(
                "weights_too_large",
                f"the weights have {card.size_bytes:,} bytes; at most {WEIGHTS_BYTES_MAX:,} "
                "are fetched: does the card say the right size?",
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(self._folder / f"{card.sha256}.lock"):
                return self._obtain(card, source)
        except OSError as error:
            raise self._explain(error, card) from error

    def _obtain(self, card: Card, source: Source) -> Path:
        path = self._folder / f"{card.sha256}.weights"
        if path.exists():
            if _sha256(path) == card.sha256:
                path.touch()
                return path
            path.unlink()
        part = self._folder / f"{card.sha256}.part"
        _fetch(card, part, source)
        part.replace(path)
        self._evict()
        return path

    def _evict(self) -> None:
        files = sorted(self._folder.glob("*.weights"), key=lambda path: path.stat().st_mtime)
        for path in files[:-FILES_MAX]:
            path.unlink(missing_ok=True)

    def _explain(self, error: OSError, card: Card) -> EnvironmentFault:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return EnvironmentFault(
                "disk_full",
                f"no room for {card.size_bytes:,} bytes of weights in {self._folder}: "
                "free some, or choose another place with --cache",
            )
        return EnvironmentFault(
            "cache_unwritable",
            f"can't keep weights in {self._folder} ({error}): choose another place with --cache",
        )


def _fetch(card: Card, part: Path, source: Source) -> None:
    """Complete the partial file; begin once more from nothing if its hash comes out wrong."""
    for _ in range(2):
        if part.exists() and part.stat().st_size > card.size_bytes:
            part.unlink()
        resumed = _append(card, part, source)
        found = _sha256(part)
        if found == card.sha256:
            return
        part.unlink()
        if not resumed:
            break
    raise EnvironmentFault(
        "weights_mismatch",
        f"the master sent weights with SHA-256 {found}, its card says {card.sha256}: "
        "restart the master, so that it hashes its file again",
    )


def _append(card: Card, part: Path, source: Source) -> bool:
    """Fetch from the end of what is there; True if something was there."""
    with part.open("ab") as file:
        had_bytes = file.tell()
        if had_bytes < card.size_bytes:
            for chunk in source(card, had_bytes):
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return had_bytes > 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process at the latest."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
