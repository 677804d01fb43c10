"""Frames: a 4-byte big-endian length, then that many bytes of payload.

Owns cutting a byte stream into payloads, whatever its splits. Promises that a
length is checked against the cap before memory is taken for it, that memory
for a frame never exceeds about twice what has arrived of it, and that a
payload once handed out is never overwritten. Leaves what a payload means to
`wire.codec`.
"""

from __future__ import annotations

import struct

from wire.errors import LocalFault, PeerFault

HEADER_BYTES = 4
FRAME_BYTES_MAX = 64 * 2**20
"""Cap of one payload between peers that have proved themselves."""
HANDSHAKE_FRAME_BYTES_MAX = 16 * 2**10
"""Cap before that: a handshake message is a few hundred bytes."""

SCRATCH_BYTES = 32 * 2**10
"""Frames up to this size are cut out of one shared buffer, larger ones get their own."""
FIRST_ALLOCATION_BYTES = 256 * 2**10
"""What an announced large frame gets before its bytes arrive; it doubles from there."""

HEADER = struct.Struct(">I")
Payload = bytes | bytearray


def encode_frame(payload: bytes | bytearray | memoryview) -> bytes:
    """Put the header before one payload.

    Raises:
        LocalFault: the payload is empty or over `FRAME_BYTES_MAX`.
    """
    check_outgoing(len(payload))
    return b"".join((HEADER.pack(len(payload)), payload))


def check_outgoing(frame_bytes: int) -> None:
    """Raise `LocalFault` for a payload that no peer would take."""
    if not 0 < frame_bytes <= FRAME_BYTES_MAX:
        raise LocalFault(
            f"a payload of {frame_bytes} bytes can't be sent; 1 to {FRAME_BYTES_MAX} can"
        )


class FrameDecoder:
    """Cuts frames out of a stream; the caller's `recv_into` writes where they will lie.

    Use either `get_buffer` and `buffer_updated` (the pair that
    `asyncio.BufferedProtocol` calls, without a copy for large frames) or
    `feed`. `frame_bytes_max` may be changed between frames: the header of a
    frame is judged only when the frame is asked for.
    """

    def __init__(self, frame_bytes_max: int = HANDSHAKE_FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.frames_decoded = 0
        self._scratch = bytearray(SCRATCH_BYTES)
        self._view = memoryview(self._scratch)
        self._start = 0
        self._end = 0
        self._large: bytearray | None = None
        self._large_filled = 0
        self._large_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of frames that are not complete yet, or not asked for yet."""
        if self._large is not None:
            return HEADER_BYTES + self._large_filled
        return self._end - self._start

    @property
    def announced_bytes(self) -> int:
        """Length of the frame being received, as far as it is known (0 otherwise)."""
        if self._large is not None:
            return self._large_bytes
        if self._end - self._start < HEADER_BYTES:
            return 0
        announced: int = HEADER.unpack_from(self._scratch, self._start)[0]
        return min(announced, self.frame_bytes_max)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Where to write the next bytes; never empty. `sizehint` is not used."""
        if self._large is not None:
            if self._large_filled == len(self._large):
                self._grow()
            return memoryview(self._large)[self._large_filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == SCRATCH_BYTES:
            self._compact()
        return self._view[self._end :]

    def received(self, n: int) -> None:
        """Take note of `n` bytes written into the last buffer."""
        if self._large is not None:
            self._large_filled += n
        else:
            self._end += n

    def next_frame(self) -> Payload | None:
        """Cut out the next whole frame, or None if more bytes are needed.

        Raises:
            PeerFault: `empty_frame` or `frame_too_large`; and again at each call.
        """
        if self._large is not None:
            return self._finish_large()
        have_bytes = self._end - self._start - HEADER_BYTES
        if have_bytes < 0:
            return None
        frame_bytes: int = HEADER.unpack_from(self._scratch, self._start)[0]
        if not 0 < frame_bytes <= self.frame_bytes_max:
            raise self._bad_length(frame_bytes)
        if have_bytes >= frame_bytes:
            return self._cut(frame_bytes)
        if HEADER_BYTES + frame_bytes > SCRATCH_BYTES:
            self._begin_large(frame_bytes, have_bytes)
        return None

    def buffer_updated(self, n: int) -> list[Payload]:
        """Take `n` bytes and return every frame that is now whole.

        Frames ahead of a bad header are returned; the next call raises.

        Raises:
            PeerFault: the first header that is not yet passed is bad.
        """
        self.received(n)
        frames: list[Payload] = []
        try:
            while (frame := self.next_frame()) is not None:
                frames.append(frame)
        except PeerFault:
            if not frames:
                raise
        return frames

    def feed(self, data: bytes | bytearray | memoryview) -> list[Payload]:
        """Copy `data` in and return every frame that is now whole; raises as above."""
        frames: list[Payload] = []
        rest = memoryview(data)
        try:
            while True:
                buffer = self.get_buffer()
                n = min(len(buffer), len(rest))
                buffer[:n] = rest[:n]
                rest = rest[n:]
                frames += self.buffer_updated(n)
                if not rest:
                    return frames
        except PeerFault:
            if not frames:
                raise
            return frames

    def _cut(self, frame_bytes: int) -> Payload:
        begin = self._start + HEADER_BYTES
        self._start = begin + frame_bytes
        self.frames_decoded += 1
        return bytes(self._view[begin : self._start])

    def _compact(self) -> None:
        """Move the incomplete frame to the front; it fits, or it would be a large one."""
        pending_bytes = self._end - self._start
        self._view[:pending_bytes] = self._view[self._start : self._end]
        self._start, self._end = 0, pending_bytes

    def _begin_large(self, frame_bytes: int, have_bytes: int) -> None:
        self._large = bytearray(min(frame_bytes, FIRST_ALLOCATION_BYTES))
        self._large[:have_bytes] = self._view[self._start + HEADER_BYTES : self._end]
        self._large_filled, self._large_bytes = have_bytes, frame_bytes
        self._start = self._end = 0

    def _grow(self) -> None:
        """Double the buffer by copying: uvloop may still hold a view of the old one."""
        assert self._large is not None
        grown = bytearray(min(self._large_bytes, 2 * len(self._large)))
        grown[: self._large_filled] = self._large
        self._large = grown

    def _finish_large(self) -> Payload | None:
        if self._large_filled < self._large_bytes:
            return None
        frame, self._large = self._large, None
        self.frames_decoded += 1
        return frame

    def _bad_length(self, frame_bytes: int) -> PeerFault:
        if frame_bytes == 0:
            return PeerFault("empty_frame", "a frame has at least one byte of payload")
        return PeerFault(
            "frame_too_large",
            f"a frame of {frame_bytes} bytes was announced; "
            f"at most {self.frame_bytes_max} are taken here at this point",
        )
