"""What the backend does, as procedures without I/O: apply, observe, clear, and who guards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from netem.backend import Counters, DirectionReading, LinkReading
from netem.errors import CommandFailed, Mismatch, MissingFeature, Refused
from netem.spec import PERFECT, Distribution, Duplex
from netem.tc.command import Command, Procedure, look, must
from netem.tc.plan import Step, apply_steps, clear_steps
from netem.tc.readback import Json, counters_of, differences, spec_of
from netem.tc.state import State, owned, read_state

# What tc and ip say, and what it means to a person.
_EXPLANATIONS = (
    ("qdisc kind is unknown", "no_sch_netem", "this kernel has no sch_netem"),
    ('What is "seed"', "no_seed", "this tc knows no seed: iproute2 and Linux 6.6 or later do"),
    ("Unknown device type", "no_ifb", "this kernel has no IFB devices, which ingress needs"),
    ("TC classifier not found", "no_matchall", "this kernel has no cls_matchall"),
    ("Failed to load TC action module", "no_mirred", "this kernel has no act_mirred"),
    ("Operation not permitted", "no_permission", "changing a link needs root (CAP_NET_ADMIN)"),
    ("command not found", "no_tool", "a tool is missing"),
)


def planned(interface: str, duplex: Duplex) -> Procedure[list[Step]]:
    """The steps that `apply` would take now; looks, and changes nothing."""
    state = yield from read_state(interface)
    return apply_steps(state, duplex)


def apply(interface: str, duplex: Duplex) -> Procedure[LinkReading]:
    """Change, read back, compare; undo everything where one of the three fails.

    Raises:
        Refused, MissingFeature, CommandFailed, Mismatch, BadSpec: see `Backend.apply`.
    """
    steps = yield from planned(interface, duplex)
    taken: list[Step] = []
    try:
        for step in steps:
            # Before it runs: an interrupted command may have done its work.
            taken.append(step)
            done = yield step.do
            if done.returncode != 0:
                taken.pop()
                raise CommandFailed(step.do.argv, done.returncode, done.stderr or done.stdout)
        state = yield from read_state(interface, offload=False)
        _compare(duplex, state)
    except BaseException as error:
        yield from _take_back(taken, error)
        if isinstance(error, CommandFailed):
            raise explained(error) from error
        raise
    return _reading(state)


def observe(interface: str) -> Procedure[LinkReading | None]:
    """What holds and what passed; None where nothing is ours."""
    state = yield from read_state(interface, offload=False)
    return _reading(state) if state.is_ours else None


def clear(interface: str) -> Procedure[bool]:
    """Take away what is ours; False where nothing was."""
    steps = yield from clearing(interface)
    for step in steps:
        yield from must(step.do)
    return bool(steps)


def clearing(interface: str) -> Procedure[list[Step]]:
    """The steps that `clear` would take now."""
    state = yield from read_state(interface, offload=False)
    return clear_steps(state)


def guard(interface: str, ssh_connection: str | None) -> Procedure[None]:
    """Raise Refused for the interface of the default route, or of this SSH session.

    `ssh_connection` is the variable SSH_CONNECTION: `CLIENT PORT SERVER PORT`.
    """
    for family in ("-4", "-6"):
        routes = yield from _routes("ip", "-j", family, "route", "show", "default")
        if any(route.get("dev") == interface for route in routes):
            raise Refused(
                "default_route",
                f"{interface} carries the default route, and a bad link there may cut you off: "
                "choose another interface, or say --force",
            )
    if ssh_connection:
        client = ssh_connection.split()[0].partition("%")[0]
        routes = yield from _routes("ip", "-j", "route", "get", client)
        if any(route.get("dev") == interface for route in routes):
            raise Refused(
                "ssh_session",
                f"{interface} carries your SSH session with {client}: choose another interface, "
                "or say --force",
            )


def explained(error: CommandFailed) -> CommandFailed | MissingFeature:
    """A missing feature where that is why a command failed."""
    for said, code, meaning in _EXPLANATIONS:
        if said in error.output:
            return MissingFeature(code, f"{meaning}; {error}; `netem doctor` says what to do")
    return error


def _routes(*argv: str) -> Procedure[Sequence[Json]]:
    command: Command = look(*argv)
    done = yield command
    # No such route, or a kernel without that family: not an interface that we cut.
    return json.loads(done.stdout or "[]") if done.returncode == 0 else []


def _take_back(steps: Sequence[Step], error: BaseException) -> Procedure[None]:
    """Undo in reverse; what can't be undone is added to what the error says."""
    for step in reversed(steps):
        if step.undo is not None:
            done = yield step.undo
            if done.returncode != 0:
                error.add_note(f"taking it back failed too: `{step.undo}`: {done.stderr.strip()}")


def _reading(state: State) -> LinkReading:
    record = state.record
    shapes = (record.egress_shape, record.ingress_shape) if record else (Distribution.UNIFORM,) * 2
    mtu = state.mtu_bytes if record and record.mtu_bytes != state.mtu_bytes else 0
    inward = state.ifb_root if state.redirects else None
    return LinkReading(
        egress=_direction(state.root, shapes[0], mtu),
        ingress=_direction(inward, shapes[1], mtu),
    )


def _direction(qdisc: Json | None, shape: Distribution, mtu_bytes: int) -> DirectionReading:
    if qdisc is None or not owned(qdisc):
        return DirectionReading(replace(PERFECT, mtu_bytes=mtu_bytes), Counters())
    spec = spec_of(qdisc, distribution=shape, mtu_bytes=mtu_bytes)
    return DirectionReading(spec, counters_of(qdisc))


def _compare(duplex: Duplex, state: State) -> None:
    found = _reading(state).duplex
    for name, want, have in (
        ("egress", duplex.egress, found.egress),
        ("ingress", duplex.ingress, found.ingress),
    ):
        # The MTU is one for both directions, and is compared below.
        wrong = differences(replace(want, mtu_bytes=0), replace(have, mtu_bytes=0))
        if wrong:
            texts = [", ".join(pair[side] for pair in wrong) for side in (0, 1)]
            raise Mismatch(f"{state.interface} {name}", *texts)
    mtu_bytes = duplex.egress.mtu_bytes or duplex.ingress.mtu_bytes
    if mtu_bytes and mtu_bytes != state.mtu_bytes:
        raise Mismatch(state.interface, f"mtu={mtu_bytes}", f"mtu={state.mtu_bytes}")
