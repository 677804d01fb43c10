"""Image bytes in append-only segment files, `images/00000001.seg` and so on.

A group's images are written with one gathered write (around the page cache where
that pays, see `direct.py`) and one sync, before the rows that refer to them are
committed: a row never points at bytes that are not durable. What a crash left behind
the last committed byte belongs to nobody and is written over. A file whose images are
all removed is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from master.store.checksum import crc32
from master.store.direct import DIRECT_BYTES_MIN, DirectBuffer, Image, aligned, open_direct
from master.store.disk import sync_directory
from master.store.holes import Range, merged, punch
from wire.errors import EnvironmentFault

# Space is allocated ahead in these steps, so that a full disk is noticed before the write
# and a sync has less metadata to write (measured: half the CPU per 3 MB group).
ALLOCATE_BYTES: Final = 16 * 2**20
# Images nearer to each other than this are read together, up to so many bytes.
GAP_BYTES_MAX: Final = 64 * 2**10
READ_BYTES_MAX: Final = 4 * 2**20
IOVECS_MAX: Final = os.sysconf("SC_IOV_MAX")
SUFFIX: Final = ".seg"


class Place(msgspec.Struct, frozen=True):
    """Where an image lies; `crc32` tells whether it still is what was uploaded."""

    segment: int
    offset_bytes: int
    size_bytes: int
    crc32: int


class Tail(msgspec.Struct, frozen=True):
    """The segment that is written to, and how far."""

    segment: int
    end_bytes: int


class Segments:
    """Writes and deletes segment files; owned by the writer thread, except `read`."""

    def __init__(
        self, directory: Path, segment_bytes: int, sync: Callable[[int], None], tail: Tail
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._fd = -1
        self._direct_fd = -1
        self._buffer: DirectBuffer | None = None
        self._allocated_bytes = 0
        self._committed = tail
        self._tail = tail

    @property
    def tail(self) -> Tail:
        """Where the next image goes."""
        return self._tail

    def path(self, segment: int) -> Path:
        """The file of a segment."""
        return self._directory / f"{segment:08d}{SUFFIX}"

    # --- writing ---------------------------------------------------------------------------

    def append(self, images: Sequence[Image], crcs: Sequence[int]) -> list[Place]:
        """Write images and sync them; call `commit` or `roll_back` next.

        Raises:
            OSError: the disk refused; nothing counts as written, call `roll_back`.
        """
        direct = sum(map(len, images)) >= DIRECT_BYTES_MIN
        if direct:
            self._tail = Tail(self._tail.segment, aligned(self._tail.end_bytes))
        places: list[Place] = []
        batch: list[Image] = []
        start = self._tail.end_bytes
        for image, crc in zip(images, crcs, strict=True):
            size = len(image)
            end = self._tail.end_bytes
            if end > 0 and end + size > self._segment_bytes:
                self._write(start, batch, direct)
                self._start_segment()
                batch, start, end = [], 0, 0
            places.append(Place(self._tail.segment, end, size, crc))
            batch.append(image)
            self._tail = Tail(self._tail.segment, end + size)
        self._write(start, batch, direct)
        return places

    def commit(self) -> None:
        """The rows of the last `append` are durable."""
        self._committed = self._tail

    def roll_back(self, spoiled: bool = False) -> None:
        """Forget the last `append`; a `spoiled` file (failed sync) is not written to again.

        After a failed sync the kernel may hold pages as clean that never reached the disk.
        """
        if self._tail.segment != self._committed.segment or spoiled:
            self._close_file()
        self._tail = self._committed
        if spoiled and self._tail.end_bytes > 0:
            self._tail = self._committed = Tail(self._tail.segment + 1, 0)

    def _write(self, offset: int, images: Sequence[Image], direct: bool) -> None:
        if not images:
            return
        fd = self._file()
        if direct and self._direct_fd >= 0:
            self._allocate(fd, offset, aligned(self._tail.end_bytes))
            direct = self._write_direct(offset, images)
        else:
            self._allocate(fd, offset, self._tail.end_bytes)
            direct = False
        if not direct:
            self._write_buffered(fd, offset, images)
        self._sync(fd)

    def _write_direct(self, offset: int, images: Sequence[Image]) -> bool:
        """False where the filesystem takes the flag and not the write; not tried again then."""
        if self._buffer is None:
            self._buffer = DirectBuffer()
        try:
            self._buffer.write(self._direct_fd, images, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.close(self._direct_fd)
            self._direct_fd = -1
            return False
        return True

    @staticmethod
    def _write_buffered(fd: int, offset: int, images: Sequence[Image]) -> None:
        for start in range(0, len(images), IOVECS_MAX):
            offset = _write_all(fd, images[start : start + IOVECS_MAX], offset)

    def _allocate(self, fd: int, start: int, end: int) -> None:
        if end <= self._allocated_bytes:
            return
        ahead = min(max(end, self._allocated_bytes + ALLOCATE_BYTES), self._segment_bytes)
        target = max(end, ahead)
        try:
            os.posix_fallocate(fd, start, target - start)
        except OSError:
            # Perhaps just what is needed still fits.
            target = end
            os.posix_fallocate(fd, start, target - start)
        self._allocated_bytes = target

    def _file(self) -> int:
        if self._fd < 0:
            path = self.path(self._tail.segment)
            fresh = not path.exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._direct_fd = open_direct(path)
            self._allocated_bytes = os.fstat(self._fd).st_size
            if fresh:
                sync_directory(self._directory)
        return self._fd

    def _start_segment(self) -> None:
        self._close_file()
        self._tail = Tail(self._tail.segment + 1, 0)

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._direct_fd >= 0:
            os.close(self._direct_fd)
            self._direct_fd = -1

    def delete(self, segments: Iterable[int]) -> None:
        """Delete files that no row refers to."""
        for segment in segments:
            self.path(segment).unlink(missing_ok=True)

    def free(self, removed: Iterable[Range]) -> None:
        """Give back the blocks of removed images, where the filesystem can."""
        with contextlib.suppress(OSError):
            for segment, holes in groupby(merged(removed), key=itemgetter(0)):
                self._punch(segment, holes)

    def _punch(self, segment: int, holes: Iterable[Range]) -> None:
        try:
            fd = os.open(self.path(segment), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted just now, as a whole
            return
        try:
            for _, begin, end in holes:
                punch(fd, begin, end)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Give back what was allocated ahead."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self._committed.end_bytes)
        self._close_file()

    # --- reading ---------------------------------------------------------------------------

    def read(self, place: Place) -> bytes:
        """The image, checked. Safe from any thread.

        Raises:
            FileNotFoundError: the segment is gone.
            EnvironmentFault: `image_corrupt`.
        """
        path = self.path(place.segment)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = os.pread(fd, place.size_bytes, place.offset_bytes)
        finally:
            os.close(fd)
        return self._checked(place, image)

    def read_many(
        self, places: Sequence[Place]
    ) -> list[bytes | FileNotFoundError | EnvironmentFault]:
        """Images in the order asked, or what `read` would raise; neighbours in one read."""
        answers: dict[int, bytes | FileNotFoundError | EnvironmentFault] = {}
        for run in _runs(places):
            answers.update(self._read_run(places, run))
        return [answers[number] for number in range(len(places))]

    def _read_run(
        self, places: Sequence[Place], run: list[int]
    ) -> Iterator[tuple[int, bytes | FileNotFoundError | EnvironmentFault]]:
        first, last = places[run[0]], places[run[-1]]
        begin, end = first.offset_bytes, last.offset_bytes + last.size_bytes
        try:
            fd = os.open(self.path(first.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            yield from ((number, error) for number in run)
            return
        try:
            data = os.pread(fd, end - begin, begin)
        finally:
            os.close(fd)
        for number in run:
            place = places[number]
            start = place.offset_bytes - begin
            try:
                yield number, self._checked(place, data[start : start + place.size_bytes])
            except EnvironmentFault as fault:
                yield number, fault

    def _checked(self, place: Place, image: bytes) -> bytes:
        path = self.path(place.segment)
        if len(image) != place.size_bytes or crc32(image) != place.crc32:
            raise EnvironmentFault(
                "image_corrupt",
                f"{path} holds other bytes than were uploaded ({place.size_bytes} at "
                f"{place.offset_bytes}); the disk or another program changed them. Restore the "
                "file from a backup, or submit the image again",
            )
        return image


def _runs(places: Sequence[Place]) -> Iterator[list[int]]:
    """Indexes of `places` that one read brings: one segment, small gaps, bounded bytes."""
    order = sorted(range(len(places)), key=lambda at: (places[at].segment, places[at].offset_bytes))
    run: list[int] = []
    for at in order:
        place = places[at]
        if run:
            first, last = places[run[0]], places[run[-1]]
            gap = place.offset_bytes - last.offset_bytes - last.size_bytes
            size = place.offset_bytes + place.size_bytes - first.offset_bytes
            if place.segment != first.segment or gap > GAP_BYTES_MAX or size > READ_BYTES_MAX:
                yield run
                run = []
        run.append(at)
    if run:
        yield run


def _write_all(fd: int, images: Sequence[Image], offset: int) -> int:
    """Write buffers one after another, however short single writes come back."""
    end = offset + sum(map(len, images))
    written = os.pwritev(fd, images, offset)
    if offset + written < end:
        rest = memoryview(b"".join(images))[written:]
        offset += written
        while rest:
            written = os.pwrite(fd, rest, offset)
            rest, offset = rest[written:], offset + written
    return end
