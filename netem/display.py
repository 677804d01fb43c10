"""Readings and findings as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from netem.backend import DirectionReading, LinkReading
from netem.doctor import Finding


def directions(reading: LinkReading) -> tuple[tuple[str, DirectionReading], ...]:
    """Both directions with their names."""
    return ("egress", reading.egress), ("ingress", reading.ingress)


def readings_table(readings: Mapping[str, LinkReading], title: str = "interface") -> Table:
    """A row for each direction of each link."""
    table = Table(title, "direction", "link", "packets", "dropped", "loss", "queued", box=None)
    for column in table.columns[3:]:
        column.justify = "right"
    for name, reading in readings.items():
        for direction, one in directions(reading):
            counters, loss = one.counters, one.counters.observed_loss
            table.add_row(
                *(name, direction, str(one.spec)),
                *(str(counters.delivered_packets), str(counters.dropped_packets)),
                *("-" if loss is None else f"{loss:.2%}", str(counters.queued_packets)),
            )
    return table


def readings_json(readings: Mapping[str, LinkReading]) -> Iterator[str]:
    """A line for each direction of each link."""
    for name, reading in readings.items():
        for direction, one in directions(reading):
            counters = one.counters
            yield json.dumps(
                {
                    "link": name,
                    "direction": direction,
                    "spec": str(one.spec),
                    "delivered_packets": counters.delivered_packets,
                    "delivered_bytes": counters.delivered_bytes,
                    "dropped_packets": counters.dropped_packets,
                    "queued_packets": counters.queued_packets,
                    "observed_loss": counters.observed_loss,
                }
            )


def findings_table(findings: Sequence[Finding]) -> Table:
    """A row for each feature; what is absent says what to do."""
    table = Table("feature", "here", "for", "what to do", box=None)
    for one in findings:
        here = "[green]yes[/]" if one.present else "[red]no[/]"
        remedy = "" if one.present else one.feature.remedy
        table.add_row(one.feature.name, here, one.feature.purpose, remedy)
    return table


def findings_json(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each feature."""
    for one in findings:
        fields: dict[str, Any] = {
            "feature": one.feature.name,
            "present": one.present,
            "purpose": one.feature.purpose,
            "remedy": one.feature.remedy,
            "said": one.said,
        }
        yield json.dumps(fields)
