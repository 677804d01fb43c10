"""The table of `netem lab status`: what was requested beside what is observed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from netem.backend import DirectionReading
from netem.lab.messages import LinkState, State
from netem.spec import LinkSpec, write

NONE = "–"


def table_of(state: State) -> Table:
    """Two rows a host: what it sends, what it gets. Requested / observed in each cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("host", "direction", "loss", "delay", "rate", "delivered", "dropped", "queued"):
        table.add_column(name, justify="left" if name in ("host", "direction") else "right")
    table.add_column("requested", overflow="fold")
    for host, link in state.links.items():
        for row in _rows(host, link):
            table.add_row(*row)
    return table


def _rows(host: str, link: LinkState) -> Iterator[tuple[str, ...]]:
    for direction, wanted, reading, delay_ms in (
        ("egress", link.requested.egress, link.reading.egress, link.egress_delay_ms),
        ("ingress", link.requested.ingress, link.reading.ingress, link.ingress_delay_ms),
    ):
        counters = reading.counters
        yield (
            host if direction == "egress" else "",
            direction,
            f"{_percent(_loss(wanted, link.is_cut))} / {_percent(counters.observed_loss)}",
            f"{_ms(wanted.delay_ms)} / {_ms(delay_ms)}",
            f"{_rate(wanted)} / {_carried(reading, link.held_s)}",
            str(counters.delivered_packets),
            str(counters.dropped_packets),
            str(counters.queued_packets),
            f"cut (then {wanted})" if link.is_cut else str(wanted),
        )


def _loss(wanted: LinkSpec, is_cut: bool) -> float:
    return 1.0 if is_cut else wanted.mean_loss


def _percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{fraction * 100:.1f}%"


def _ms(delay_ms: float | None) -> str:
    return NONE if delay_ms is None else f"{delay_ms:.1f}ms"


def _rate(wanted: LinkSpec) -> str:
    return write("rate_bps", wanted.rate_bps) if wanted.rate_bps else "any"


def _carried(reading: DirectionReading, held_s: float) -> str:
    """Mean throughput since the LinkSpec holds."""
    bits = reading.counters.delivered_bytes * 8
    return f"{bits / held_s / 1e6:.2f}mbit" if held_s > 0 else NONE
