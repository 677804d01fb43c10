"""One direction of a link: packets in, packets out when they are due. Pure.

Promises the order of steps and the formulas of Linux' `netem_enqueue`
(`net/sched/sch_netem.c`): duplicate, lose, corrupt, queue limit, delay, rate,
queue by departure. Leaves clocks and devices to `process`.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from netem.backend import Counters
from netem.emulator.dice import Dice
from netem.spec import LinkSpec

FRAME_HEADER_BYTES: Final = 14
"""A TUN device carries bare IP; a rate counts Ethernet's header too, as `tc` does on veth."""
NEVER_S: Final = float("inf")


class Direction:
    """The queue of one direction. Times are monotonic seconds.

    `change` keeps the packets that wait, as `tc qdisc change` does, and counts anew.
    """

    __slots__ = (
        *("_bit_time_s", "_bytes", "_delivered", "_dice", "_dropped", "_last_s"),
        *("_limit", "_number", "_plain", "_ready", "_waited_s", "_waiting", "spec"),
    )

    def __init__(self, spec: LinkSpec, seed: str) -> None:
        self._ready: list[bytes] = []
        self._waiting: list[tuple[float, int, float, bytes]] = []
        self._last_s = 0.0
        self._number = 0
        self.change(spec, seed)

    def change(self, spec: LinkSpec, seed: str) -> None:
        """From the next packet on do as `spec` says."""
        self.spec = spec
        self._dice = Dice(spec, seed)
        self._limit = spec.queue_packets
        self._bit_time_s = 1 / spec.rate_bps if spec.rate_bps else 0.0
        self._plain = not (
            spec.mean_loss or spec.delay_ms or spec.duplicate or spec.corrupt or spec.rate_bps
        )
        self._delivered = self._bytes = self._dropped = 0
        self._waited_s = 0.0

    @property
    def next_due_s(self) -> float:
        """When the next packet leaves; infinity if none waits."""
        if self._ready:
            return 0.0
        return self._waiting[0][0] if self._waiting else NEVER_S

    def counters(self) -> Counters:
        """What happened since the LinkSpec took hold."""
        waiting = len(self._waiting) + len(self._ready)
        return Counters(self._delivered, self._bytes, self._dropped, waiting)

    def mean_delay_ms(self) -> float | None:
        """How long the delivered packets really waited here; None before the first."""
        return self._waited_s * 1e3 / self._delivered if self._delivered else None

    def offer(self, now_s: float, packet: bytes) -> None:
        """A packet enters the direction."""
        if self._plain and not self._waiting:
            self._ready.append(packet)
            return
        dice = self._dice
        copies = 2 if dice.duplicates is not None and dice.duplicates() else 1
        if dice.loses is not None and dice.loses():
            copies -= 1
        if copies == 0:
            self._dropped += 1
            return
        if copies == 2 and not (dice.loses is not None and dice.loses()):
            # The copy is drawn for like any packet, except that it is not copied again.
            self._enqueue(now_s, packet)
        elif copies == 2:
            self._dropped += 1
        self._enqueue(now_s, packet)

    def due(self, now_s: float) -> list[tuple[float, bytes]]:
        """The packets that leave now, in order, each with when it was to leave."""
        waiting = self._waiting
        leaving = [(now_s, packet) for packet in self._ready]
        self._ready.clear()
        while waiting and waiting[0][0] <= now_s:
            departure_s, _, arrival_s, packet = heappop(waiting)
            self._waited_s += now_s - arrival_s
            leaving.append((departure_s, packet))
        self._delivered += len(leaving)
        self._bytes += sum([len(packet) for _, packet in leaving])
        return leaving

    def _enqueue(self, now_s: float, packet: bytes) -> None:
        dice, waiting = self._dice, self._waiting
        if dice.corrupts is not None and dice.corrupts():
            packet = flip_bit(packet, dice.pick(8 * len(packet)))
        if len(waiting) >= self._limit:
            self._dropped += 1
            return
        departure_s = self._departure_s(now_s, len(packet))
        # The number keeps packets with the same departure in the order of their arrival.
        self._number += 1
        heappush(waiting, (departure_s, self._number, now_s, packet))

    def _departure_s(self, now_s: float, packet_bytes: int) -> float:
        dice = self._dice
        if dice.reorders is not None and dice.reorders():
            return now_s
        start_s, delay_s = now_s, dice.delay_s()
        if self._bit_time_s:
            if self._waiting and self._last_s > now_s:
                # It is sent after the last one that waits, and has spent that time of its delay.
                delay_s = max(0.0, delay_s - (self._last_s - now_s))
                start_s = self._last_s
            delay_s += (packet_bytes + FRAME_HEADER_BYTES) * 8 * self._bit_time_s
        departure_s = start_s + delay_s
        if not self._waiting or departure_s > self._last_s:
            self._last_s = departure_s
        return departure_s


def flip_bit(packet: bytes, bit: int) -> bytes:
    """The packet with one bit wrong: no checksum of IP, TCP or UDP misses a single bit."""
    wrong = bytearray(packet)
    wrong[bit >> 3] ^= 1 << (bit & 7)
    return bytes(wrong)
