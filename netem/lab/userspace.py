"""Links by the userspace emulator: a TUN device in every host, and one process between them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from netem.emulator import control
from netem.emulator.control import PortReading
from netem.errors import Mismatch, NetemError
from netem.lab.links import INTERFACE, MTU_BYTES, mtu_bytes, raise_interface, set_mtu
from netem.lab.namespaces import Place
from netem.lab.topology import Host, Topology
from netem.lab.tun import dropped_by_device, open_tun
from netem.spec import Duplex

EMULATOR_TIMEOUT_S: Final = 5.0


class UserspaceLinks:
    """As `Links` says; works on every kernel with TUN devices."""

    name: Final = "userspace"

    def __init__(self, topology: Topology, places: Mapping[str, Place], home: Place) -> None:
        self._places = places
        self._home = home
        self._mtu_bytes = dict.fromkeys(places, MTU_BYTES)
        self._numbers = itertools.count(1)
        self._overruns = dict.fromkeys(places, 0)
        ports = []
        for host in topology.hosts:
            with places[host.name].inside(home):
                fd = open_tun(INTERFACE)
                raise_interface(host.address)
            ports.append(control.PortConfig(host.name, host.address, fd))
        self._socket, self.watched = _start_emulator(ports)

    def apply(self, host: Host, link: Duplex) -> None:
        """As `Links.apply`."""
        self._set_mtu(host.name, link)
        held = self._ask(control.Set(next(self._numbers), host.name, link)).link.duplex
        if held != link:
            raise Mismatch(f"link of {host.name}", str(link), str(held))
        self._overruns[host.name] = self._overrun(host.name)

    def observe(self) -> Mapping[str, PortReading]:
        """As `Links.observe`. What a device dropped while the emulator was busy counts as well."""
        return {name: self._observe(name) for name in self._places}

    def close(self) -> None:
        """The emulator ends when its socket closes."""
        self._socket.close()
        try:
            self.watched.wait(EMULATOR_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.watched.kill()
            self.watched.wait()

    def _set_mtu(self, host: str, link: Duplex) -> None:
        wanted_bytes = mtu_bytes(link)
        # Most changes leave it alone, and a cut must not wait for it.
        if wanted_bytes != self._mtu_bytes[host]:
            with self._places[host].inside(self._home):
                set_mtu(wanted_bytes)
            self._mtu_bytes[host] = wanted_bytes

    def _observe(self, host: str) -> PortReading:
        found = self._ask(control.Observe(next(self._numbers), host))
        egress, overrun = found.link.egress, self._overrun(host) - self._overruns[host]
        dropped = replace(
            egress.counters, dropped_packets=egress.counters.dropped_packets + overrun
        )
        link = replace(found.link, egress=replace(egress, counters=dropped))
        return msgspec.structs.replace(found, link=link)

    def _overrun(self, host: str) -> int:
        """Packets that the host's device has ever dropped, its queue being full."""
        with self._places[host].inside(self._home):
            return dropped_by_device(INTERFACE)

    def _ask(self, request: control.Request) -> PortReading:
        try:
            self._socket.send(msgspec.json.encode(request))
            while True:
                data = self._socket.recv(control.MESSAGE_BYTES_MAX)
                answer = msgspec.json.decode(data, type=control.Answer)
                # Others are answers that came after we had given up on them.
                if answer.number == request.number:
                    return answer.reading
        except (OSError, msgspec.DecodeError) as problem:
            raise NetemError("emulator", f"the emulator does not answer: {problem}") from problem


def _start_emulator(
    ports: list[control.PortConfig],
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        config = control.Config(theirs.fileno(), tuple(ports))
        emulator = subprocess.Popen(
            [sys.executable, "-m", "netem.emulator", msgspec.json.encode(config).decode()],
            pass_fds=[theirs.fileno(), *(port.fd for port in ports)],
            stdin=subprocess.DEVNULL,
        )
    # Only the emulator may hold the devices: they must go when it goes.
    for port in ports:
        os.close(port.fd)
    ours.settimeout(EMULATOR_TIMEOUT_S)
    return ours, emulator
