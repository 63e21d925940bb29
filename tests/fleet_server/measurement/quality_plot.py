"""What the tests do to a real series, drawn: `python -m tests.fleet_server.measurement.quality_plot FILE.svg`.

Above as it was measured, below as it is judged: bad and suspect rows marked, the line through the rest. Also prints precision and
recall against the provider's own flags.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fleet_server.measurement.in_context import Context, judge
from fleet_server.measurement.quality import aggregate_flag, unpack_results
from fleet_server.measurement.rules import DAY_S, DEFAULTS
from fleet_server.measurement.windows import Series
from tests.fleet_server.measurement.test_quality_judges import french_creek, grand_bay

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 720, 150, 44, 26, 46
_DAYS = (15, 22)
_COLOURS = {3: "#b26a00", 4: "#b00020"}
_NAMES = {3: "suspect", 4: "bad"}


def draw(series: Series, flags: np.ndarray, title: str, unit: str) -> str:
    """The series twice, as SVG: without and with its flags."""
    high = float(np.nanmax(series.values)) * 1.05
    seconds = series.times_s - series.times_s[0]
    x = _LEFT + (_WIDTH - _LEFT - 8) * seconds / seconds[-1]
    below = _TOP + _HEIGHT + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {below + _HEIGHT + 24}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for top, name in ((_TOP, "as measured"), (below, "as judged")):
        parts.append(f'<text x="{_LEFT}" y="{top - 8}">{title}, {name}</text>')
        parts += [_axis(top, high, share, unit) for share in (0.0, 0.5, 1.0)]
    parts.append(_line(x, _scaled(series.values, high, _TOP), np.isfinite(series.values)))
    y = _scaled(series.values, high, below)
    parts.append(_line(x, y, np.isfinite(series.values) & (flags < 3)))
    for flag, colour in _COLOURS.items():
        rows = np.flatnonzero((flags == flag) & np.isfinite(series.values))
        parts += [f'<circle cx="{x[r]:.1f}" cy="{y[r]:.1f}" r="4" fill="{colour}"/>' for r in rows]
        parts.append(
            f'<text x="{_WIDTH - 90 * (5 - flag)}" y="{below - 8}" fill="{colour}">'
            f"{rows.size} {_NAMES[flag]}</text>"
        )
    return "\n".join([*parts, "</svg>\n"])


def _scaled(values: np.ndarray, high: float, top: float) -> np.ndarray:
    return top + _HEIGHT * (1 - values / high)


def _axis(top: float, high: float, share: float, unit: str) -> str:
    y = top + _HEIGHT * (1 - share)
    return (
        f'<path d="M{_LEFT} {y:.0f}H{_WIDTH - 8}" stroke="#ccc"/>'
        f'<text x="{_LEFT - 4}" y="{y + 4:.0f}" text-anchor="end">{high * share:.0f}</text>'
        + (f'<text x="2" y="{top - 8}">{unit}</text>' if share == 1.0 else "")
    )


def _line(x: np.ndarray, y: np.ndarray, is_drawn: np.ndarray) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[is_drawn], y[is_drawn], strict=True))
    return f'<polyline points="{points}" fill="none" stroke="#1b5e8c" stroke-width="1.2"/>'


def _thinned(series: Series, flags: np.ndarray) -> np.ndarray:
    """Rows that a drawing of this width can show: one in three, all that are flagged and those beside them."""
    shown = np.arange(len(series)) % 3 == 0
    for shift in (-1, 0, 1):
        shown |= np.roll(flags >= 3, shift)
    return np.flatnonzero(shown)


def main() -> None:
    turbidity, provider = grand_bay("Turb")
    flags = _flags(turbidity, "turbidity")
    found, rejected = flags >= 3, provider == "<-3>"
    hits = int((found & rejected).sum())
    sys.stdout.write(f"turbidity: precision {hits}/{found.sum()}, recall {hits}/{rejected.sum()}\n")
    oxygen = french_creek()
    flags = _flags(oxygen, "dissolved_oxygen")
    day = (oxygen.times_s - oxygen.times_s[0]) // DAY_S
    week = np.flatnonzero((day >= _DAYS[0]) & (day < _DAYS[1]))
    rows = week[_thinned(oxygen.slice(week[0], week[-1] + 1), flags[week])]
    part = Series(oxygen.times_s[rows], oxygen.values[rows])
    drawing = draw(part, flags[rows], "Oxygen in French Creek, 7–14 September 2012", "mg/L")
    Path(sys.argv[1]).write_text(drawing, encoding="utf-8")


def _flags(series: Series, observed_property: str) -> np.ndarray:
    tests = judge(series, DEFAULTS[observed_property], Context())
    return aggregate_flag([*unpack_results(tests).values()], len(series))


if __name__ == "__main__":
    main()
