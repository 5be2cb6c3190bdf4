"""The page's file, from its model: page.html filled in, with page.css and page.js inside."""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.claims import claims
from analysis.page.charts import look, panel_svg
from analysis.page.model import page_model
from analysis.page.tables import Json
from analysis.whole import Source, Whole, load_whole
from bbqrec.errors import InputError

HERE = Path(__file__).parent
INTERVAL_WIDTH = 120
"""Of the drawing of an interval in a table, in its own units."""


def write_page(source: Source, out: str | Path, judge: Callable[[Whole], Sequence[Any]] = claims) -> Path:
    """Writes the page of a store or of exports to `out`; the same input makes the same bytes.

    What `judge` finds is shown as a table: objects with section, sentence, verdict and details. Raises InputError for a
    source that is not there, and for an unwritable `out`; what is damaged or missing in it is named in the page.
    """
    whole = load_whole(source, needed=False)
    return put(render(page_model(whole, judge(whole))), out)


def render(model: Json) -> str:
    """The page as HTML. All texts of the model are escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"panel_svg": panel_svg, "look": look, "interval_svg": interval_svg, "anchor": anchor}
    files = {name: Markup((HERE / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return environment.get_template("page.html").render(model, **files)


def interval_svg(interval: Sequence[float]) -> Markup:
    """A difference with its interval on a scale whose middle is zero; an arrow where it lies beyond the scale."""
    low, middle, high, half = interval
    x = [INTERVAL_WIDTH / 2 * (1 + 0.92 * max(-1.0, min(1.0, value / half))) for value in (low, middle, high)]
    side = "none" if low <= 0 <= high else "more" if low > 0 else "less"
    tip = 5 if middle > 0 else -5
    mark = f'<circle cx="{x[1]:.1f}" cy="9" r="3.4"/>'
    if abs(middle) > half:  # an arrow: it lies beyond
        mark = f'<path d="M{x[1] - tip / 2:.1f} 5L{x[1] + tip / 2:.1f} 9L{x[1] - tip / 2:.1f} 13Z"/>'
    return Markup(
        f'<svg class="interval {side}" viewBox="0 0 {INTERVAL_WIDTH} 18" aria-hidden="true">'
        f'<path class="zero" d="M{INTERVAL_WIDTH / 2} 0V18"/><path d="M{x[0]:.1f} 9H{x[2]:.1f}"/>{mark}</svg>'
    )


def anchor(name: str) -> str:
    """A name as an element's id."""
    return re.sub(r"[^\w-]+", "-", name)


def put(page: str, out: str | Path) -> Path:
    """Writes the page whole: a browser that reloads it meanwhile finds the old one or the new one."""
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            Path(made).chmod(0o644)  # as any file; mkstemp's are its user's alone
            return Path(made).replace(out)
        finally:
            Path(made).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror or error})", "give a writable --out file") from error
