"""A calibration's certificate on paper, from the content that is certified. The same content gives the same bytes.

The PDF's own fonts know Western European letters only: others stand as `?` on the sheet, and as they are in the JSON, whose hash the sheet has.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reportlab.platypus import Paragraph
    from reportlab.platypus.flowables import Flowable

_GREEK = {"χ": "chi", "ν": "nu", "Ω": "Ohm", "−": "-", "≤": "<=", "≥": ">=", "√": "sqrt", "–": "-"}
_MARGIN_MM = 18


def certificate_pdf(told: Mapping[str, Any], sha256: str) -> bytes:
    """The certificate as PDF on A4.

    Args:
        told: `certifying.content`; a draft's says that it is none.
        sha256: of that content.
    """
    # Half a second to import, for what is asked for rarely.
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    styles = getSampleStyleSheet()
    plain = styles["BodyText"]
    small = plain.clone("small", fontSize=7.5, leading=9)
    width = A4[0] - 2 * _MARGIN_MM * mm

    def cell(content: str) -> Paragraph:
        return Paragraph(_printable(content), small)

    title = f"Calibration certificate {told['calibration']}"
    story: list[Flowable] = [Paragraph(_printable(title), styles["Title"])]
    story.append(Paragraph(_printable(_verdict(told)), plain))
    for heading, rows in _sections(told, sha256):
        story.append(Paragraph(_printable(heading), styles["Heading3"]))
        story.append(_table([[cell(one) for one in row] for row in rows], width))
    buffer = io.BytesIO()
    margins = dict.fromkeys(
        ("leftMargin", "rightMargin", "topMargin", "bottomMargin"), _MARGIN_MM * mm
    )
    SimpleDocTemplate(buffer, pagesize=A4, title=_latin(title), invariant=1, **margins).build(story)
    return buffer.getvalue()


def _table(cells: Sequence[Sequence[Paragraph]], width: float) -> Flowable:
    from reportlab.lib import colors
    from reportlab.platypus import Table, TableStyle

    columns = len(cells[0])
    widths = [width * 0.28, width * 0.72] if columns == 2 else [width / columns] * columns
    made = Table(cells, hAlign="LEFT", colWidths=widths)
    grid = [("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    made.setStyle(TableStyle(grid))
    return made


def _verdict(told: Mapping[str, Any]) -> str:
    approval = told["approval"]
    if approval["by"] is None:
        return "A draft: it was not approved, and makes no observation."
    return f"Approved by {approval['by']} at {approval['at']}."


def _sections(told: Mapping[str, Any], sha256: str) -> list[tuple[str, list[list[str]]]]:
    found = [
        ("Probe", _probe_rows(told)),
        ("Result", _result_rows(told)),
        ("Points", _point_rows(told)),
        ("Standards", _standard_rows(told)),
        ("What points have in common", _shared_rows(told)),
        ("Record", _record_rows(told, sha256)),
    ]
    return [(heading, rows) for heading, rows in found if rows]


def _probe_rows(told: Mapping[str, Any]) -> list[list[str]]:
    sensor = told["sensor"]
    return [
        ["Probe", f"{sensor['title']} ({sensor['type']}), {sensor['manufacturer']}"],
        ["Serial number", sensor["serial"]],
        ["Channel", f"{told['property']}, {told['unit']}"],
    ]


def _result_rows(told: Mapping[str, Any]) -> list[list[str]]:
    numbers, fit, unit = told["parameters"], told["fit"] or {}, told["unit"]
    k = numbers["k"]
    rows = [["Equation", told["equation"]]]
    rows += [
        [name, f"{_number(numbers[name])} ± {_number(k * numbers[f'u_{name}'])} (U, k = {k:g})"]
        for name in ("offset", "slope", "curve")
        if name != "curve" or numbers["curve"]
    ]
    rows.append(["Covariance of offset and slope", _number(numbers["cov_offset_slope"])])
    if numbers["curve"]:
        rows.append(["Covariance of offset and curve", _number(numbers["cov_offset_curve"])])
        rows.append(["Covariance of slope and curve", _number(numbers["cov_slope_curve"])])
    rows.append(
        [
            "The probe's own standard uncertainty",
            f"{_number(numbers['u_absolute'])} {unit} and {100 * numbers['u_relative']:g} % of the value",
        ]
    )
    # Certificates from before u could grow do not say.
    if numbers.get("u_drift_absolute") or numbers.get("u_drift_relative"):
        grown = f"{_number(numbers['u_drift_absolute'])} {unit} and {100 * numbers['u_drift_relative']:g} % of the value"
        rows.append(["A year since adds to u", grown])
    if numbers["degrees_of_freedom"] is not None:
        told_of = [str(numbers["degrees_of_freedom"])]
        told_of += [
            f"{word} {_number(fit[name])}"
            for name, word in (
                ("chi_squared", "χ²"),
                ("p_value", "p"),
                ("birge_ratio", "Birge ratio"),
            )
            if fit.get(name) is not None
        ]
        rows.append(["Degrees of freedom", "; ".join(told_of)])
    return rows


def _point_rows(told: Mapping[str, Any]) -> list[list[str]]:
    points = told["points"]
    if not points:
        return []
    residuals = iter((told["fit"] or {}).get("residuals", []))
    rows = [["Step", "Reading", "u", "Standard", "u", "Residual", "°C", "Taken (UTC)", "By"]]
    for one in points:
        residual = next(residuals, None) if one["stage"] == "fit" else None
        rows.append(
            [
                one["step"] if one["stage"] == "fit" else f"{one['step']} ({one['stage']})",
                _number(one["indicated"]),
                _number(one["u_indicated"]),
                _number(one["reference"]),
                _number(one["u_reference"]),
                "" if residual is None else _number(residual),
                "" if one["temperature_c"] is None else f"{one['temperature_c']:g}",
                one["taken_at"],
                one["taken_by"],
            ]
        )
    return rows


def _standard_rows(told: Mapping[str, Any]) -> list[list[str]]:
    used = {one["standard"]["id"]: one["standard"] for one in told["points"] if one["standard"]}
    if not used:
        return [["Against", told["reference"]]] if told["reference"] else []
    rows = [["Standard", "Lot", "Certificate", "u", "Expires"]]
    return rows + [
        [
            one["name"],
            one["lot"] or "-",
            one["certificate"] or "-",
            _number(one["u"]),
            one["expires_at"] or "does not",
        ]
        for one in used.values()
    ]


def _shared_rows(told: Mapping[str, Any]) -> list[list[str]]:
    """Standards that several points are in: what their certificate leaves open moves these points together."""
    names = {one["standard"]["id"]: one["standard"] for one in told["points"] if one["standard"]}
    rows = []
    for one in (told["fit"] or {}).get("references", ()):
        if len(one["points"]) > 1:
            standard = names[one["standard"]]
            numbers = ", ".join(str(number) for number in one["points"])
            name = f"{standard['name']} {standard['lot']}".strip()
            what = f"{name}: its u of {_number(one['u'])} {told['unit']} moves points {numbers} together (correlated)"
            rows.append(["Shared", what])
    return rows


def _record_rows(told: Mapping[str, Any], sha256: str) -> list[list[str]]:
    previous = told["previous"]
    rows = [
        ["Performed", f"{told['performed_by']}, {told['performed_at'] or '-'}"],
        ["Environment", ", ".join(f"{name} {value}" for name, value in told["environment"].items()) or "-"],
        ["Valid", f"from {told['valid_from']} to {told['valid_to'] or 'further notice'}"],
    ]  # fmt: skip
    if previous is not None:
        before = f"version {previous['version']}: offset {_number(previous['offset'])}, slope {_number(previous['slope'])}"
        rows.append(["Version", f"{told['version']}, after {before}"])
    software = ", ".join(f"{name} {version}" for name, version in told["software"].items())
    rows.append(["Software", software])
    rows.append(["SHA-256 of the JSON certificate", sha256])
    return rows


def _number(number: float) -> str:
    return f"{number:.7g}"


def _printable(text: str) -> str:
    return _latin(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latin(text: str) -> str:
    for letter, instead in _GREEK.items():
        text = text.replace(letter, instead)
    return text.encode("cp1252", "replace").decode("cp1252")
