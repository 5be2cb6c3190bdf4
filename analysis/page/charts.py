"""Panels of figures -> inline SVG that reads without a script. Colours and sizes are the style sheet's.

A panel says how its units map to its drawing (`data-x`, `data-y`: two values and their places), and every line its
values, so that the script can find the point below a pointer.
"""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from analysis.page.tables import Json

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 78, 14, 14, 48
COLOURS = 9
DASHES = 4
TICKS = 5
LETTER = 8.5
"""Width of a letter on a phone, where they are largest."""


def panel_svg(panel: Json) -> Markup:
    """The drawing of a panel of either kind."""
    return _lines(panel) if panel["kind"] == "lines" else _bars(panel)


def look(place: int) -> str:
    """Classes of the place in a legend: colours first, then dashes."""
    return f"c{place % COLOURS} d{place // COLOURS % DASHES}"


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round values from `low` (or below) to `high` (or above), at most `most` steps."""
    if not high > low:
        high = low + 1.0
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _lines(panel: Json) -> Markup:
    series, names = panel["series"], panel.get("xs")
    ys = [y for s in series for _, y, *_ in s["points"]] + [high for s in series for *_, high in s["band"]]
    most = max(ys, default=1.0) or 1.0
    least = min(ys, default=0.0) if names is None else 0.0
    marks = ticks(least if least > most / 2 else 0.0, most)
    y = _scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    if names is None:
        xs = [x for s in series for x, *_ in s["points"]]
        low, high = min(xs, default=0), max(xs, default=1)
        steps = [t for t in ticks(low, high, 8) if t == round(t) and low <= t <= high]
        x = _scale(low, high if high > low else low + 1, LEFT + 8, WIDTH - RIGHT)
        places = [(x(t), f"{t:g}", False) for t in steps]
        ends = (low, high if high > low else low + 1)
    else:
        ends = (-0.4, max(len(names), 2) - 0.6)
        x = _scale(*ends, LEFT, WIDTH - RIGHT)
        places = [(x(place), name, name == panel.get("bold")) for place, name in enumerate(names)]
    drawn = [_line(s, x, y, marked=names is not None) for s in series]
    words = [_word(x(place), word) for place, word in panel["words"]]
    data = [
        f'data-x="{ends[0]} {x(ends[0]):.1f} {ends[1]} {x(ends[1]):.1f}"',
        f'data-y="{marks[0]} {y(marks[0]):.1f} {marks[-1]} {y(marks[-1]):.1f}"',
        f'data-xs="{escape("|".join(n.replace("|", " ") for n in names))}"' if names is not None else "",
    ]
    said = f"{panel['title']}: {panel['y_label']} by {panel['x_label']}, {len(series)} lines"
    return _drawing(panel, said, y, marks, places, [*drawn, *words], data)


def _line(series: Json, x: Any, y: Any, marked: bool) -> str:
    points = [(x(px), y(py)) for px, py, _ in series["points"]]
    parts = []
    if series["band"]:
        upper = [f"{x(px):.1f},{y(high):.1f}" for px, _, high in series["band"]]
        lower = [f"{x(px):.1f},{y(max(low, 0.0)):.1f}" for px, low, _ in reversed(series["band"])]
        parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    parts.append(f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}"/>')
    dots = points if marked else points[series["best"] : series["best"] + 1] if "best" in series else []
    parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2"/>' for px, py in dots]
    runs = [run for _, _, run in series["points"]]
    whole = runs[0] if len(set(runs)) == 1 else " ".join(runs)
    kind = f"series {look(series['look'])}{' partial' if series['partial'] else ''}"
    values = f"{' '.join(f'{px:g}' for px, *_ in series['points'])}"
    heights = " ".join(f"{py:.4f}" for _, py, _ in series["points"])
    return (
        f'<g class="{kind}" data-look="{series["look"]}" data-name="{escape(series["name"])}" '
        f'data-runs="{escape(whole)}" data-px="{values}" data-py="{heights}">{"".join(parts)}</g>'
    )


def _bars(panel: Json) -> Markup:
    groups = panel["groups"]
    bars = [bar for group in groups for bar in group["bars"]]
    tops = [bar["mean"] + (bar["sd"] or 0.0) for bar in bars if bar["mean"] is not None]
    marks = ticks(0.0, max(tops, default=1.0) or 1.0)
    y = _scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    wide = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    places, drawn = [], []
    for index, group in enumerate(groups):
        begin, each = LEFT + wide * index, min(44.0, 0.84 * wide / max(1, len(group["bars"])))
        start = begin + (wide - each * len(group["bars"])) / 2
        room = max(4, int(wide / LETTER))
        name = group["name"] if len(group["name"]) <= room else group["name"][: room - 1] + "…"
        places.append((begin + wide / 2, name, False))
        for place, bar in enumerate(group["bars"]):
            drawn.append(_bar(bar, start + place * each, each, y, group["name"]))
    said = f"{panel['title']} of {len(groups)} data sets as bars"
    return _drawing(panel | {"x_label": ""}, said, y, marks, places, drawn, [])


def _bar(bar: Json, left: float, wide: float, y: Any, group: str) -> str:
    if bar["mean"] is None:
        return _word(left + wide / 2, bar["word"])
    top, middle = y(bar["mean"]), left + wide / 2
    about = f"{bar['mean']:.4f}" + ("" if bar["sd"] is None else f" ± {bar['sd']:.4f}")
    parts = [
        f'<rect x="{left + 0.04 * wide:.1f}" y="{top:.1f}" width="{0.92 * wide:.1f}" height="{y(0.0) - top:.1f}"/>'
    ]
    if bar["sd"]:
        low, high = y(max(0.0, bar["mean"] - bar["sd"])), y(bar["mean"] + bar["sd"])
        parts.append(f'<path class="error" d="M{middle:.1f} {low:.1f}V{high:.1f}"/>')
    return (
        f'<g class="bar {look(bar["look"])}" data-look="{bar["look"]}" data-group="{escape(group)}" '
        f'data-said="{about}" data-runs="{escape(bar["runs"])}">{"".join(parts)}</g>'
    )


def _drawing(
    panel: Json,
    said: str,
    y: Any,
    marks: Sequence[float],
    places: Sequence[tuple[float, str, bool]],
    drawn: Sequence[str],
    data: Sequence[str],
) -> Markup:
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if len(marks) > 1 else 0
    digits += any(abs(round(m, digits) - m) > 1e-9 for m in marks)
    grid = [
        f'<path class="grid" d="M{LEFT} {y(m):.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y(m) + 4:.1f}" text-anchor="end">{m:.{digits}f}</text>'
        for m in marks
    ]
    named = [
        f'<text class="tick{" bold" if bold else ""}" x="{px:.1f}" y="{HEIGHT - BOTTOM + 19}" '
        f'text-anchor="middle">{escape(name)}</text>'
        for px, name, bold in places
    ]
    middle, across = (TOP + HEIGHT - BOTTOM) / 2, (LEFT + WIDTH - RIGHT) / 2
    axes = [
        f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        f'<text class="label" x="{across:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(panel["x_label"])}</text>',
        f'<text class="label" transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel['y_label'])}</text>",
    ]
    if not drawn:
        axes.append(f'<text class="word" x="{across:.0f}" y="{middle:.0f}" text-anchor="middle">no result yet</text>')
    tall = HEIGHT if panel["x_label"] else HEIGHT - 18
    head = f'<svg class="chart {panel["kind"]}" viewBox="0 0 {WIDTH} {tall}" role="img" aria-label="{escape(said)}"'
    return Markup(f"{' '.join([head, *filter(None, data)])}>{''.join([*grid, *named, *axes, *drawn])}</svg>")


def _word(px: float, word: str) -> str:
    """Upright, where a number is missing."""
    base = HEIGHT - BOTTOM - 6
    return f'<text class="word" transform="translate({px + 4:.1f} {base}) rotate(-90)">{escape(word)}</text>'


def _scale(low: float, high: float, first: float, last: float) -> Any:
    """Values from `low` to `high` -> places from `first` to `last`."""
    return lambda value: first + (value - low) / (high - low) * (last - first)
