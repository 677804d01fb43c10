"""The keeper of a lab: builds it, holds its namespaces, watches over its owner and its time.

One process with one thread, in a session and in namespaces of its own. It ends
the lab when its owner ends (however that was), when its time is over, when the
emulator dies, and when it is told to. If the keeper itself is killed, its
namespaces go with the last process in them; `netem lab down` ends those.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec

from netem import doctor
from netem.errors import MissingFeature, NetemError, Refused
from netem.lab import channel, folder, namespaces, processes
from netem.lab.links import Links
from netem.lab.messages import (
    Answer,
    Change,
    Cut,
    Done,
    Down,
    Entrance,
    Fault,
    Heal,
    LinkState,
    Observe,
    Order,
    Record,
    Renew,
    Request,
    State,
)
from netem.lab.namespaces import Place
from netem.lab.topology import TTL_MAX_S, Host, Topology, hosts_file
from netem.lab.userspace import UserspaceLinks
from netem.lab.veth import VethLinks
from netem.spec import CUT, Duplex
from netem.tc.runner import LocalRunner, drive

log = logging.getLogger("netem.lab")


class Keeper:
    """One lab from its first namespace to its last."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._topology = order.topology
        self._path = Path(order.folder)
        self._deadline_s = time.monotonic() + order.topology.ttl_s
        self._requested = {host.name: host.link for host in order.topology.hosts}
        self._cut: set[str] = set()
        self._in_own = _be_where_root_can(order.topology.name)
        self._home, self._places = _make_places(order, self._path)
        self._since_s: dict[str, float] = {}
        self._links = _make_links(self._topology, self._places, self._home)
        for host in self._topology.hosts:
            self._apply(host, host.link)

    def record(self) -> Record:
        """What to write into the lab's folder."""
        return Record(
            topology=self._topology,
            lab_id=self._order.lab_id,
            backend=self._links.name,
            owner_pid=self._order.owner_pid,
            keeper_pid=os.getpid(),
            keeper_start_ticks=processes.start_ticks(os.getpid()),
            boot_id=processes.boot_id(),
            own_user_namespace=self._in_own,
            expires_s=self._deadline_s,
            entrances={
                name: Entrance(place.net_fd, place.uts_fd, place.net_id)
                for name, place in self._places.items()
            },
        )

    def serve(self, listener: socket.socket, owner_fd: int | None) -> str:
        """Answer requests until something ends the lab; says what it was."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ, "request")
            if owner_fd is not None:
                selector.register(owner_fd, selectors.EVENT_READ, "its owner ended")
            emulator = self._links.watched
            if emulator is not None:
                selector.register(
                    os.pidfd_open(emulator.pid), selectors.EVENT_READ, "its emulator ended"
                )
            while (left_s := self._deadline_s - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    if key.data != "request":
                        return str(key.data)
                    if self._serve_one(listener):
                        return "it was told to"
        return "its time is over"

    def close(self) -> None:
        """End every process of the lab, then its links; the kernel removes the rest.

        Raises:
            NetemError: a process does not end; the lab's folder stays, for another try.
        """
        killed = processes.kill_inside({place.net_id for place in self._places.values()})
        log.info("lab %s: %d processes ended", self._topology.name, len(killed))
        self._links.close()
        folder.remove(self._path)

    def _serve_one(self, listener: socket.socket) -> bool:
        """Answer one connection; True if the lab is to end."""
        connection, _ = listener.accept()
        ends = False
        # Who asked may be gone before it is answered.
        with connection, contextlib.suppress(OSError):
            answer, ends = self._answer(channel.hear(connection))
            connection.sendall(channel.line_of(answer))
        return ends

    def _answer(self, line: bytes) -> tuple[Answer, bool]:
        try:
            request: Request = msgspec.json.decode(line, type=Request)
            if isinstance(request, Down):
                self.close()
                return Done(time.monotonic()), True
            return self._do(request), False
        except Exception as problem:  # the edge of a connection: one request must not end a lab
            if not isinstance(problem, NetemError | msgspec.MsgspecError):
                log.exception("lab %s: a request failed", self._topology.name)
            return Fault.of(problem), False

    def _do(self, request: Observe | Change | Cut | Heal | Renew) -> Answer:
        if isinstance(request, Observe):
            return self._state()
        if isinstance(request, Renew):
            if not 0 < request.ttl_s <= TTL_MAX_S:
                raise Refused("ttl", f"ttl {request.ttl_s} s: above 0 and up to {TTL_MAX_S:.0f}")
            self._deadline_s = time.monotonic() + request.ttl_s
            return Done(time.monotonic())
        host = self._topology.host(request.host)
        if isinstance(request, Change):
            wanted, is_cut = request.link, host.name in self._cut
        else:
            wanted, is_cut = self._requested[host.name], isinstance(request, Cut)
        done = self._apply(host, Duplex.both(CUT) if is_cut else wanted)
        self._requested[host.name] = wanted
        (self._cut.add if is_cut else self._cut.discard)(host.name)
        log.info("lab %s: %s", self._topology.name, request)
        return done

    def _apply(self, host: Host, link: Duplex) -> Done:
        self._links.apply(host, link)
        done = Done(time.monotonic())
        self._since_s[host.name] = done.at_s
        return done

    def _state(self) -> State:
        readings, now_s = self._links.observe(), time.monotonic()
        links = {
            name: LinkState(
                requested=self._requested[name],
                is_cut=name in self._cut,
                reading=reading.link,
                egress_delay_ms=reading.egress_delay_ms,
                ingress_delay_ms=reading.ingress_delay_ms,
                held_s=now_s - self._since_s[name],
            )
            for name, reading in readings.items()
        }
        return State(links, self._deadline_s - now_s)


def main(order: Order) -> int:
    """Build, say on stdout that it is there, keep, and clean up."""
    signal.signal(signal.SIGTERM, _end)
    path = Path(order.folder)
    try:
        # The owner is looked for first: it can only end afterwards.
        owner_fd = _owner(order.owner_pid)
        keeper = Keeper(order)
    except BaseException as problem:
        # Its log goes with the folder, so that whatever it was has to be said here.
        folder.remove(path)
        if isinstance(problem, Exception):
            _say(Fault.of(problem))
        if not isinstance(problem, NetemError):
            raise
        return 1
    with contextlib.closing(keeper), channel.listener(path / folder.SOCKET) as listener:
        folder.write(path, keeper.record())
        _say(Done(time.monotonic()))
        reason = keeper.serve(listener, owner_fd)
        log.info("lab %s ends: %s", order.topology.name, reason)
    return 0


def _owner(pid: int) -> int | None:
    """A descriptor that becomes readable when the owner ends; None if the lab has none."""
    if not pid:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise Refused("owner", f"there is no process {pid} that could own the lab") from None


def _be_where_root_can(name: str) -> bool:
    """Move the keeper out of the machine's network; True if it took a user namespace for it.

    From here on no interface and no route of the machine is within reach.
    """
    purpose = f"the middle of lab {name}"
    if os.geteuid() == 0:
        # Root of a container may be no root at all.
        with contextlib.suppress(MissingFeature):
            Place.new(purpose)
            return False
    namespaces.become_root_of_own()
    Place.new(purpose)
    return True


def _make_places(order: Order, path: Path) -> tuple[Place, dict[str, Place]]:
    """The keeper's own place, then those of the hosts; the keeper ends up in its own."""
    home = Place.here()
    namespaces.unshare(namespaces.NEWNS, f"the names of lab {order.topology.name}")
    _install_names(path / folder.HOSTS, hosts_file(order.topology))
    places = {}
    for host in order.topology.hosts:
        places[host.name] = Place.new(f"host {host.name}")
        socket.sethostname(host.name)
        _disable_ipv6()
        home.enter()
    return home, places


def _make_links(topology: Topology, places: dict[str, Place], home: Place) -> Links:
    """Join the hosts, by what was asked for or by the best that this kernel has."""
    backend = topology.backend
    if backend != "userspace":
        features = [f for f in doctor.FEATURES if f.name in doctor.NEEDS["tc"] | {"tun"}]
        findings = drive(doctor.examine(features), LocalRunner())
        backend = doctor.choose(findings, None if backend == "auto" else backend)
    made = VethLinks if backend == VethLinks.name else UserspaceLinks
    return made(topology, places, home)


def _disable_ipv6() -> None:
    """A lab has IPv4 alone: solicitations that nobody answers would be counted as traffic."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1", encoding="ascii")


def _install_names(file: Path, text: str) -> None:
    """Put a hosts file in the place of the machine's, for the processes of this lab alone."""
    file.write_text(text, encoding="ascii")
    private, bind = ["mount", "--make-rprivate", "/"], ["mount", "--bind", str(file), "/etc/hosts"]
    for command in (private, bind):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NetemError("mount", f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _say(answer: Answer) -> None:
    """One line to whoever started this; stdout is closed with it."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), channel.line_of(answer))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main(msgspec.json.decode(sys.argv[1], type=Order)))
