"""Fetching published weights into the cache: resumable, checked by hash, one writer at a time.

The file grows as `NAME.part` and takes its name only when its hash is right, so
that a file under its name is a whole one. Leaves the single request, and its
bounds in time, to `master.models.transfer`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import httpx

from master.logs import fields
from master.models.catalogue import Pretrained
from master.models.files import sha256_of
from master.models.transfer import Broken, Patience, make_client, take_up
from wire.errors import EnvironmentFault

_log = logging.getLogger("lookout.models")


def download(preset: Pretrained, target: Path, patience: Patience | None = None) -> None:
    """Fetch `preset` to `target`, continuing what an earlier call left in `target`.part.

    Raises:
        EnvironmentFault: no answer, a refusal, another file than promised, a full disk, or
            another process at the same download. What came of the right file is kept.
    """
    patience = patience or Patience()
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(part) as file, make_client(patience) as client:
            continued = file.tell() > 0
            _fill(client, preset, file, patience)
            if continued and not _is_promised(preset, part):
                _log.warning(**fields("download begun anew", file=part, reason="wrong hash"))
                file.truncate(0)
                _fill(client, preset, file, patience)
            _settle(preset, part, file, target)
    except OSError as error:
        raise EnvironmentFault(
            "cache_unwritable", f"can't write {part}: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[BinaryIO]:
    """The part file, locked: two masters on one machine share the cache."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentFault(
                "download_busy", f"another process is writing {part}; wait for it and start again"
            ) from error
        # Between our open and our lock the other may have finished: this is then its whole
        # file, renamed, and `stat` finds no part file or a newer one.
        if not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise FileNotFoundError(f"another process renamed {part}; start again")
        yield file


def _fill(client: httpx.Client, preset: Pretrained, file: BinaryIO, patience: Patience) -> None:
    """Take the file up where it stands, again after each break that came after new bytes."""
    for attempt in range(1, patience.attempts + 1):
        held_before = file.seek(0, os.SEEK_END)
        try:
            take_up(client, preset, file, patience)
            return
        except Broken as broken:
            held_bytes = file.tell()
            _log.warning(
                **fields("download broken", url=preset.url, held_bytes=held_bytes, reason=broken)
            )
            if attempt == patience.attempts or held_bytes <= held_before:
                raise EnvironmentFault(
                    "download_broken",
                    f"the connection to {preset.url} broke ({broken}, attempt {attempt}); "
                    f"{held_bytes} bytes are kept, and the next start continues there",
                ) from broken


def _is_promised(preset: Pretrained, part: Path) -> bool:
    return sha256_of(part).startswith(preset.hash_prefix)


def _settle(preset: Pretrained, part: Path, file: BinaryIO, target: Path) -> None:
    """Give the file its name, if it is the promised one."""
    os.fsync(file.fileno())
    if not _is_promised(preset, part):
        part.unlink()
        raise EnvironmentFault(
            "wrong_hash",
            f"what {preset.url} sent does not have the SHA-256 {preset.hash_prefix}… that its "
            "name promises; it was thrown away",
        )
    if target.exists():  # under this name, yet not used: its hash was wrong
        target.replace(target.with_name(target.name + ".replaced"))
    part.replace(target)
