"""A bar chart as SVG: a few rectangles and words."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH: Final = 800
LEFT: Final = 215
BAR: Final = 18
GAP: Final = 26
COLOURS: Final = ("#2563eb", "#16a34a", "#d97706", "#9ca3af")


def bars(title: str, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """For each group a bar for each name: as long as the median, with a line from the lowest to the highest."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    longest = max(max(values) for group in groups.values() for values in group.values())
    scale = (WIDTH - LEFT - 90) / longest
    out: list[str] = []
    y = 50
    for label, group in groups.items():
        out.append(f'<text x="10" y="{y + 13}" font-weight="bold">{escape(label)}</text>')
        for name, values in group.items():
            middle, low, high = sorted(values)[len(values) // 2], min(values), max(values)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            line = y + BAR / 2
            out.append(
                f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
                f'<rect x="{LEFT}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" fill="{colour}"/>'
                f'<line x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" y1="{line}" y2="{line}"'
                ' stroke="#111827" stroke-width="2"/>'
                f'<text x="{LEFT + high * scale + 8:.1f}" y="{y + 13}">{middle:,.0f}</text>'
            )
            y += BAR + 4
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
        ' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="10" y="24" font-size="15">{escape(title)}</text>{"".join(out)}</svg>\n'
    )
