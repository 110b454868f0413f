"""Curves as SVG, by hand: the documentation needs no library for it, and the files stay small and diffable."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 16, 44
# Told apart by people who see few colours, and by lightness in print.
COLOURS = ("#0b5fa5", "#d1600f", "#3a7d3a", "#8a4fa3", "#7a5c36", "#b03060", "#4a4a4a", "#009999", "#998800")


def svg(title: str, x_label: str, y_label: str, x: list[float], lines: dict[str, list[float | None]]) -> str:
    """Return a plot with logarithmic axes: straight means a power, a slope of one means linear."""
    shown = {name: [(a, b) for a, b in zip(x, y, strict=True) if a > 0 and b and b > 0] for name, y in lines.items()}
    shown = {name: points for name, points in shown.items() if points}
    every = [point for points in shown.values() for point in points]
    if not every:
        return ""
    height = HEIGHT + 18 * len(shown)
    across = _Axis([a for a, _ in every], LEFT, WIDTH - RIGHT)
    up = _Axis([b for _, b in every], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for tick in across.ticks():
        parts.append(_line(across.at(tick), TOP, across.at(tick), HEIGHT - BOTTOM, "#dddddd"))
        parts.append(_text(across.at(tick), HEIGHT - BOTTOM + 16, _short(tick), "middle"))
    for tick in up.ticks():
        parts.append(_line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick), "#dddddd"))
        parts.append(_text(LEFT - 6, up.at(tick) + 4, _short(tick), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(
        f'<text transform="translate(14 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across.at(a):.1f},{up.at(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="3" fill="{colour}"/>' for a, b in points]
        parts.append(_line(LEFT, HEIGHT + 10 + 18 * number, LEFT + 24, HEIGHT + 10 + 18 * number, colour))
        parts.append(_text(LEFT + 32, HEIGHT + 14 + 18 * number, name, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    def __init__(self, values: list[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
