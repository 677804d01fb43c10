"""The emulator's loop: TUN devices in, decisions of the `Switch`, TUN devices out.

One thread, one system call a packet each way. It ends when the other end of its
control socket closes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import select
import socket
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from netem.emulator.control import MESSAGE_BYTES_MAX, Answer, Config, PortReading, Request, Set
from netem.emulator.switch import Port, Switch
from netem.spec import Duplex

BURST_PACKETS: Final = 32
"""Packets read from one device before others have their turn."""
PACKET_BYTES_MAX: Final = 65_536
WAIT_MAX_S: Final = 60.0
_PRIORITY: Final = 1


class Emulator:
    """The devices, the switch between them and the control socket."""

    def __init__(self, switch: Switch, devices: Mapping[int, Port], control: socket.socket) -> None:
        self._switch = switch
        self._devices = devices
        self._fds = {port.name: fd for fd, port in devices.items()}
        self._control = control
        self._running = True

    def run(self) -> None:
        """Forward packets until the keeper is gone."""
        inputs = [self._control.fileno(), *self._devices]
        while self._running:
            # select, as its timeout is in microseconds; that of epoll is in milliseconds.
            due_in_s = self._switch.next_due_s() - time.monotonic()
            ready, _, _ = select.select(inputs, [], [], min(max(due_in_s, 0.0), WAIT_MAX_S))
            for fd in ready:
                port = self._devices.get(fd)
                if port is not None:
                    self._read(fd, port)
                else:
                    self._answer()
            self._write()

    def _read(self, fd: int, port: Port) -> None:
        receive, now_s = self._switch.receive, time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(BURST_PACKETS):
                receive(now_s, port, os.read(fd, PACKET_BYTES_MAX))

    def _write(self) -> None:
        for port, packets in self._switch.deliver(time.monotonic()):
            fd = self._fds[port.name]
            for _, packet in packets:
                # EINVAL: corrupted until it is no IP any more. EIO: the host's interface is
                # down. A wire loses such packets too.
                with contextlib.suppress(OSError):
                    os.write(fd, packet)

    def _answer(self) -> None:
        data = self._control.recv(MESSAGE_BYTES_MAX)
        if not data:
            self._running = False
            return
        request: Request = msgspec.json.decode(data, type=Request)
        port = self._switch.ports[request.port]
        if isinstance(request, Set):
            port.change(request.duplex, _chance())
        answer = Answer(
            request.number,
            PortReading(port.reading(), port.egress.mean_delay_ms(), port.ingress.mean_delay_ms()),
        )
        self._control.send(msgspec.json.encode(answer))


def run(config: Config) -> None:
    """Emulate until the control socket closes."""
    # Nothing here makes cycles, and a collection would delay packets.
    gc.disable()
    _hurry()
    ports = {p.name: Port(p.name, p.address, Duplex(), _chance()) for p in config.ports}
    devices = {p.fd: ports[p.name] for p in config.ports}
    for fd in devices:
        os.set_blocking(fd, False)
    with socket.socket(fileno=config.control_fd) as control:
        Emulator(Switch(ports), devices, control).run()


def _chance() -> str:
    """The seed of a link that asks for none."""
    return f"chance {secrets.token_hex(8)}"


def _hurry() -> None:
    """Run before everything else, as packets wait for this process. Only root may.

    Measured beside ten busy processes on two processors: one packet of a hundred was 39 ms
    late without, and 4 ms with it. The kernel leaves a twentieth of the time to others
    whatever happens (sched_rt_runtime_us).
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:  # noqa: PTH123
        slack.write("1")
