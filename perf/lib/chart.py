"""Charts as SVG, written by hand: grouped bars, and lines over an axis that may be logarithmic.

Readable on light and dark pages (a background of their own), without scripts, fonts or references to anywhere else.
"""
import math
from xml.sax.saxutils import escape

COLOURS = ["#2166ac", "#e08214", "#7f7f7f", "#5aae61", "#b2182b", "#762a83"]
WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 74, 62


def _text(x, y, text, anchor="middle", size=12, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{more}>{escape(str(text))}</text>'


def _number(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _ticks(top, logarithmic, bottom):
    if logarithmic:
        return [10.0 ** e for e in range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)]
    step = 10 ** math.floor(math.log10(top / 4)) if top > 0 else 1
    step = next((step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 6), step)
    return [step * i for i in range(int(math.ceil(top / step)) + 1)]


class _Frame:
    """Title, legend, value axis with its lines, and the way from values to places."""

    def __init__(self, title, unit, series, values, logarithmic=False, line=None):
        values = [v for v in values if v is not None] + ([line[0]] if line else [])
        self.log = logarithmic
        ticks = _ticks(max(values), logarithmic, min(v for v in values if v > 0) if logarithmic else 0)
        self.low, self.high = ticks[0], ticks[-1] if ticks[-1] > ticks[0] else ticks[0] * 10 or 1
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
                      f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" fill="#222">',
                      f'<title>{escape(title)}</title>',
                      f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
                      _text(WIDTH / 2, 24, title, size=16),
                      _text(18, (TOP + HEIGHT - BOTTOM) / 2, unit,
                            more=f' transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"')]
        x = LEFT
        for i, name in enumerate(series):
            self.parts.append(f'<rect x="{x}" y="42" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
            self.parts.append(_text(x + 17, 52, name, "start"))
            x += 34 + 7 * len(name)
        for tick in ticks:
            y = self.y(tick)
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
            self.parts.append(_text(LEFT - 6, y + 4, _number(tick), "end"))
        if line:
            y = self.y(line[0])
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#b2182b" stroke-dasharray="6 4"/>')
            self.parts.append(_text(WIDTH - RIGHT, y - 5, line[1], "end", 11))

    def y(self, value):
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def done(self, axis):
        self.parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, axis))
        return "\n".join(self.parts + ["</svg>"]) + "\n"


def bars(title, unit, axis, groups, series, logarithmic=False, line=None):
    """groups: names along the axis; series: {name: [a (value, low, high) or None per group]}; line: (value, text)."""
    values = [v for column in series.values() for entry in column if entry for v in (entry[0], entry[2])]
    frame = _Frame(title, unit, list(series), values, logarithmic, line)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = min(room * 0.8 / len(series), 60)
    for g, group in enumerate(groups):
        centre = LEFT + room * (g + 0.5)
        frame.parts.append(_text(centre, HEIGHT - BOTTOM + 18, group))
        for s, column in enumerate(series.values()):
            if not column[g]:
                continue
            value, low, high = column[g]
            x = centre + (s - len(series) / 2) * width
            top, middle = frame.y(value), x + width / 2
            frame.parts.append(f'<rect x="{x + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
                               f'height="{HEIGHT - BOTTOM - top:.1f}" fill="{COLOURS[s % len(COLOURS)]}"/>')
            frame.parts.append(f'<path d="M{middle:.1f} {frame.y(low):.1f}V{frame.y(high):.1f}" stroke="#222"/>')
            frame.parts.append(_text(middle, frame.y(high) - 4, _number(value), size=10))
    return frame.done(axis)


def lines(title, unit, axis, labels, series, logarithmic=False, line=None):
    """labels: evenly spaced places along the axis ("" for none); series: {name: [value or None per place]}."""
    frame = _Frame(title, unit, list(series), [v for column in series.values() for v in column], logarithmic, line)
    step = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    for i, label in enumerate(labels):
        if label:
            frame.parts.append(_text(LEFT + step * (i + 0.5), HEIGHT - BOTTOM + 18, label))
    for s, column in enumerate(series.values()):
        points = [(LEFT + step * (i + 0.5), frame.y(value)) for i, value in enumerate(column) if value is not None]
        colour = COLOURS[s % len(COLOURS)]
        frame.parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
                           + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')
        if len(points) <= 24:
            frame.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return frame.done(axis)
