"""Grids of config fields: the values that a study tries, one field at a time around the base, or all combinations."""

from collections.abc import Mapping, Sequence
from itertools import product

from bbqrec.errors import InputError

Grid = Mapping[str, tuple[str, ...]]
"""Dotted field -> its values, as on a command line."""

PAPER: Grid = {
    "quantizer.levels": ("1", "2", "3", "4"),
    "quantizer.codes": ("64", "128", "256", "512"),
    "quantizer.width": ("32", "64", "128", "256"),
    "recommender.buckets": ("10", "50", "100", "200"),
}
"""L, N, D and K of Sec. 5.4."""

SMALL: Grid = {**PAPER, "quantizer.codes": ("256", "512", "1024", "2048")}
"""The same up to the base of profile small in N; its D of 64 lies on the paper's grid."""

TINY: Grid = {
    **PAPER,
    "quantizer.codes": ("8", "16", "32", "64"),
    "quantizer.width": ("8", "16", "32", "64"),
}
"""The same around the base of profile tiny, whose codebook is smaller."""

GRIDS: Mapping[str, Grid] = {"paper": PAPER, "small": SMALL, "tiny": TINY}
"""Figure 3 by profile."""


def parse_grid(words: Sequence[str]) -> Grid:
    """FIELD=VALUE,VALUE words as a grid. Raises InputError for another form, a field or a value given twice."""
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        field, sign, text = word.partition("=")
        values = tuple(text.split(","))
        if not (field and sign and all(values)):
            what = f"--grid {word!r} is not of the form FIELD=VALUE,VALUE"
            raise InputError(what, "write for instance quantizer.levels=1,2,3")
        if field in found:
            raise InputError(f"--grid {field} is given twice", f"give it once, with all its values: {field}=A,B")
        if len(set(values)) < len(values):
            raise InputError(f"--grid {word} names a value twice", "give each value once")
        found[field] = values
    return found


def one_at_a_time(grid: Grid) -> tuple[dict[str, str], ...]:
    """A setting for each value of each field; the others keep their base."""
    return tuple({field: value} for field, values in grid.items() for value in values)


def crossed(grid: Grid) -> tuple[dict[str, str], ...]:
    """A setting for each combination of values."""
    return tuple(dict(zip(grid, values, strict=True)) for values in product(*grid.values()))
