"""From an interface as it is to one as requested: the commands, each with what undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from netem.errors import BadSpec, Refused
from netem.spec import Distribution, Duplex, LinkSpec
from netem.tc.arguments import netem_arguments
from netem.tc.command import Command, change
from netem.tc.readback import Json, spec_of
from netem.tc.record import ALIAS_BYTES_MAX, Record
from netem.tc.state import HANDLES, INGRESS_HANDLE, PREF, State, owned


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the one that takes it back if a later one fails."""

    do: Command
    undo: Command | None = None


def apply_steps(state: State, duplex: Duplex) -> list[Step]:
    """What makes the interface as requested; a perfect link is what `clear_steps` leaves.

    Raises:
        BadSpec: the directions ask for different MTUs.
        Refused: a qdisc of somebody else is in the way.
    """
    state.refuse_foreign()
    if duplex == Duplex():
        return clear_steps(state)
    mtus = {spec.mtu_bytes for spec in (duplex.egress, duplex.ingress)} - {0}
    if len(mtus) > 1:
        raise BadSpec(
            f"{state.interface} has one MTU for both directions, and mtu="
            f"{duplex.egress.mtu_bytes} and mtu={duplex.ingress.mtu_bytes} are requested: keep one"
        )
    record = state.record or Record(
        state.mtu_bytes, state.offload, alias=state.alias, gso_segments=state.gso_segments
    )
    return [
        *_note(state, _new_record(record, state, duplex)),
        *_offload_off(state),
        *_single_segments(state),
        *_mtu(state, next(iter(mtus), record.mtu_bytes)),
        *_egress(state, record, duplex.egress),
        *_ingress(state, record, duplex.ingress),
    ]


def clear_steps(state: State) -> list[Step]:
    """What takes away everything of ours, and nothing else; nothing where nothing is."""
    steps = []
    if owned(state.root):
        steps.append(_change("tc", "qdisc", "del", "dev", state.interface, "root"))
    steps += _ingress_away(state)
    record = state.record
    if record is None:
        return steps
    if record.mtu_bytes != state.mtu_bytes:
        steps.append(_change(*_set_link(state.interface, "mtu", str(record.mtu_bytes))))
    if record.offload:
        steps.append(_change(*_switch(state.interface, record.offload, "on")))
    if record.gso_segments not in (0, state.gso_segments):
        steps.append(_change(*_segments(state.interface, record.gso_segments)))
    # The note goes last: until then a second `clear` finds it.
    return [*steps, _change(*_set_link(state.interface, "alias", record.alias))]


def _new_record(record: Record, state: State, duplex: Duplex) -> Record:
    kept = tuple(dict.fromkeys((*record.offload, *state.offload)))
    return replace(
        record,
        offload=kept,
        gso_segments=record.gso_segments or state.gso_segments,
        egress_shape=_shape(duplex.egress, record.egress_shape),
        ingress_shape=_shape(duplex.ingress, record.ingress_shape),
    )


def _shape(spec: LinkSpec, before: Distribution) -> Distribution:
    """The table that the qdisc will have: without jitter it keeps the one it had."""
    return spec.distribution if spec.jitter_ms else before


def _note(state: State, record: Record) -> Iterator[Step]:
    if str(record) == state.alias:
        return
    if len(str(record).encode()) > ALIAS_BYTES_MAX:
        raise Refused(
            "alias_too_long",
            f"{state.interface} has an alias of {len(state.alias)} characters, and together with "
            f"our note it is over {ALIAS_BYTES_MAX} bytes: shorten it",
        )
    yield _change(
        *_set_link(state.interface, "alias", str(record)),
        undo=_set_link(state.interface, "alias", state.alias),
    )


def _offload_off(state: State) -> Iterator[Step]:
    if state.offload:
        yield _change(
            *_switch(state.interface, state.offload, "off"),
            undo=_switch(state.interface, state.offload, "on"),
        )


def _single_segments(state: State) -> Iterator[Step]:
    if state.gso_segments > 1:
        yield _change(
            *_segments(state.interface, 1), undo=_segments(state.interface, state.gso_segments)
        )


def _mtu(state: State, mtu_bytes: int) -> Iterator[Step]:
    if mtu_bytes != state.mtu_bytes:
        yield _change(
            *_set_link(state.interface, "mtu", str(mtu_bytes)),
            undo=_set_link(state.interface, "mtu", str(state.mtu_bytes)),
        )


def _egress(state: State, record: Record, spec: LinkSpec) -> Iterator[Step]:
    if needs_qdisc(spec):
        yield _qdisc(state.interface, state.root, record.egress_shape, spec)
    elif state.root is not None:
        yield _qdisc_away(state.interface, state.root, record.egress_shape)


def _ingress(state: State, record: Record, spec: LinkSpec) -> Iterator[Step]:
    """The netem of the IFB device stands before packets are led to it."""
    if not needs_qdisc(spec):
        yield from _ingress_away(state)
        return
    interface, ifb = state.interface, state.ifb
    if not state.has_ifb:
        delete = ("ip", "link", "del", "dev", ifb)
        yield _change("ip", "link", "add", "name", ifb, "type", "ifb", undo=delete)
        yield _change("ip", "link", "set", "dev", ifb, "up")
    ours = state.ifb_root if owned(state.ifb_root) else None
    yield _qdisc(ifb, ours, record.ingress_shape, spec)
    if not state.redirects:
        yield _change(
            *("tc", "qdisc", "add", "dev", interface, "handle", INGRESS_HANDLE, "ingress"),
            undo=("tc", "qdisc", "del", "dev", interface, "ingress"),
        )
        yield _change(
            *("tc", "filter", "add", "dev", interface, "parent", INGRESS_HANDLE),
            *("protocol", "all", "pref", str(PREF), "matchall"),
            *("action", "mirred", "egress", "redirect", "dev", ifb),
        )


def _ingress_away(state: State) -> list[Step]:
    steps = []
    if state.redirects:
        steps.append(_change("tc", "qdisc", "del", "dev", state.interface, "ingress"))
    if state.has_ifb:
        steps.append(_change("ip", "link", "del", "dev", state.ifb))
    return steps


def _qdisc(interface: str, old: Json | None, shape: Distribution, spec: LinkSpec) -> Step:
    """One netem at the root: new, changed in place, or replaced.

    Changing keeps the packets that wait inside; only a table of jitter can't be
    taken out of a qdisc again, so that one is replaced.
    """
    at = ("dev", interface, "root", "handle")
    if old is None:
        return _change(
            *("tc", "qdisc", "add", *at, HANDLES[0], "netem", *netem_arguments(spec)),
            undo=("tc", "qdisc", "del", "dev", interface, "root"),
        )
    handle, before = str(old["handle"]), spec_of(old, distribution=shape, mtu_bytes=0)
    again = ("netem", *netem_arguments(before, complete=True))
    sticks = shape is not Distribution.UNIFORM and shape is not spec.distribution
    if not sticks or not spec.jitter_ms:
        complete = netem_arguments(spec, complete=True)
        return _change(
            *("tc", "qdisc", "change", *at, handle, "netem", *complete),
            undo=("tc", "qdisc", "change", *at, handle, *again),
        )
    other = HANDLES[1] if handle == HANDLES[0] else HANDLES[0]
    return _change(
        *("tc", "qdisc", "replace", *at, other, "netem", *netem_arguments(spec)),
        undo=("tc", "qdisc", "replace", *at, handle, *again),
    )


def _qdisc_away(interface: str, old: Json, shape: Distribution) -> Step:
    spec = spec_of(old, distribution=shape, mtu_bytes=0)
    again = ("root", "handle", str(old["handle"]), "netem", *netem_arguments(spec))
    return _change(
        *("tc", "qdisc", "del", "dev", interface, "root"),
        undo=("tc", "qdisc", "add", "dev", interface, *again),
    )


def needs_qdisc(spec: LinkSpec) -> bool:
    """True if packets don't just pass; the MTU is the interface's own."""
    return replace(spec, mtu_bytes=0) != LinkSpec()


def _change(*do: str, undo: tuple[str, ...] | None = None) -> Step:
    return Step(change(*do), change(*undo) if undo is not None else None)


def _set_link(interface: str, *words: str) -> tuple[str, ...]:
    return ("ip", "link", "set", "dev", interface, *words)


def _segments(interface: str, segments: int) -> tuple[str, ...]:
    return _set_link(interface, "gso_max_segs", str(segments))


def _switch(interface: str, features: tuple[str, ...], to: str) -> tuple[str, ...]:
    return ("ethtool", "-K", interface, *(w for feature in features for w in (feature, to)))
