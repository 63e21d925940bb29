"""The acceptance protocol of one node: what it is, what was measured at the bench, and that the fleet heard it.

One content, written as HTML (one file, nothing loaded from elsewhere) and as PDF.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, SimpleDocTemplate, Table, TableStyle
from reportlab.platypus.flowables import Flowable, Spacer

from provisioning.records import Record

_STYLE = (
    "body{font:14px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%;margin:0 0 1.5em}"
    "th,td{text-align:left;vertical-align:top;border-bottom:1px solid #bbb;padding:.25em .5em}"
    ".no{font-weight:bold}@media print{body{margin:0}}"
)


@dataclass(frozen=True)
class _Section:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def verdict(record: Record) -> str:
    """One sentence: accepted when, or what is missing."""
    if record.accepted_at is not None:
        return f"Accepted on {record.accepted_at}."
    missing = []
    if record.node_id is None:
        missing.append("it is not enrolled")
    if record.tested_at is None:
        missing.append("its probes were not tested")
    elif record.failed:
        missing.append(f"{len(record.failed)} channels failed the self-test")
    if record.heard_at is None:
        missing.append("the fleet has not stored a reading of it")
    return f"Not accepted: {', '.join(missing)}."


def protocol_html(record: Record) -> str:
    """The protocol as one HTML file."""
    parts = [
        f"<h1>Acceptance protocol {escape(record.label)}</h1>",
        f'<p class="{"yes" if record.accepted_at else "no"}">{escape(verdict(record))}</p>',
    ]
    for section in _sections(record):
        head = "".join(f"<th>{escape(one)}</th>" for one in section.head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in section.rows
        )
        parts.append(f"<h2>{escape(section.title)}</h2><table><tr>{head}</tr>{rows}</table>")
    parts.append("<p>Date, signature: ______________________________</p>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(record.label)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )


def protocol_pdf(record: Record) -> bytes:
    """The protocol as PDF on A4. The same record gives the same bytes."""
    styles = getSampleStyleSheet()
    plain, small = styles["BodyText"], styles["BodyText"].clone("small", fontSize=8, leading=10)

    def text(content: str) -> Paragraph:
        return Paragraph(str(escape(content)), small)

    story: list[Flowable] = [
        Paragraph(str(escape(f"Acceptance protocol {record.label}")), styles["Title"]),
        Paragraph(str(escape(verdict(record))), plain),
    ]
    for section in _sections(record):
        cells = [[text(one) for one in section.head]]
        cells += [[text(cell) for cell in row] for row in section.rows]
        table = Table(cells, repeatRows=1, hAlign="LEFT", colWidths=_widths(len(section.head)))
        grid = [
            ("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.grey),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
        table.setStyle(TableStyle(grid))
        story += [Paragraph(section.title, styles["Heading2"]), table]
    story += [Spacer(1, 10 * mm), Paragraph("Date, signature: " + "_" * 40, plain)]
    buffer = io.BytesIO()
    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), 18 * mm)
    SimpleDocTemplate(buffer, pagesize=A4, title=record.label, invariant=1, **margins).build(story)
    return buffer.getvalue()


def _widths(columns: int) -> list[float]:
    width = A4[0] - 36 * mm
    if columns == 2:
        return [45 * mm, width - 45 * mm]
    return [width * share for share in (0.09, 0.22, 0.1, 0.16, 0.18, 0.25)[:columns]]


def _sections(record: Record) -> list[_Section]:
    return [
        _Section("Node", ("what", "is"), _node_rows(record)),
        _Section(
            f"Self-test {record.tested_at or ''}".strip(),
            ("slot", "probe", "channel", "value", "may be", "result"),
            [_channel_row(channel) for channel in record.channels],
        ),
        _Section(
            f"First reading stored by the fleet {record.heard_at or ''}".strip(),
            ("channel", "raw value"),
            [_reading_row(reading) for reading in record.readings],
        ),
    ]


def _node_rows(record: Record) -> list[tuple[str, str]]:
    firmware = f"{record.firmware_version}, SHA-256 {record.firmware_sha256}"
    certificate = f"{record.certificate_serial}, until {record.certificate_expires_at}"
    probes = ", ".join(f"{slot} {serial}" for slot, serial in record.serials.items())
    return [
        ("Label", record.label),
        ("Node", record.node_id or "–"),
        ("Model", record.model),
        ("Board", f"{record.mac or '–'} {record.chip or ''}".strip()),
        ("MicroPython", record.micropython or "–"),
        ("Firmware", firmware if record.firmware_version else "–"),
        ("Certificate", certificate if record.certificate_serial else "–"),
        ("Broker", record.broker or "–"),
        ("Wi-Fi", ", ".join(record.wifi) or "–"),
        ("Serial numbers of probes", probes or "–"),
        ("Tested by", record.tester or "–"),
    ]


def _channel_row(channel: dict[str, object]) -> tuple[str, ...]:
    value, unit = channel["value"], channel["unit"]
    return (
        str(channel["slot"]),
        str(channel["probe"]),
        str(channel["channel"]),
        f"{value:g} {unit}" if isinstance(value, int | float) else str(channel["reason"]),
        f"{channel['lowest']:g} … {channel['highest']:g} {unit}",
        "pass" if channel["passed"] else f"FAIL: {channel['next_step']}",
    )


def _reading_row(reading: dict[str, object]) -> tuple[str, str]:
    value = reading.get("raw_value")
    words = f"{value:g}" if isinstance(value, int | float) else str(reading.get("status"))
    return str(reading.get("channel")), words
