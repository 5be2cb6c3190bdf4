"""Codebook usage and collisions of every quantizer behind the rows, a line per quantizer and signal."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.labels import dataset_label
from analysis.page.tables import Json, cell, flat, method_name, number, text
from analysis.whole import StudyPart

USED = re.compile(r"codebook/codes/used_(\d+)_(\w+)")


def codebooks_table(studies: Mapping[str, StudyPart]) -> Json | None:
    """None if no run recorded its codes. A bar is perplexity over the size of the codebook or, where that is not known
    (exports), over the most codes that any signal uses."""
    columns = sorted({name for part in studies.values() for name in part.rows if USED.fullmatch(name)})
    levels = sorted({int(match[1]) for name in columns if (match := USED.fullmatch(name))})
    signals = list(dict.fromkeys(match[2] for name in columns if (match := USED.fullmatch(name))))
    signals.sort(key=lambda name: ("id", "text", "image").index(name) if name in ("id", "text", "image") else 3)
    if not columns:
        return None
    most = max(float(part.rows[name].max()) for part in studies.values() for name in columns if name in part.rows)
    lines, seen = [], set()
    for part in studies.values():
        for row in part.rows.to_dict("records"):
            key = text(row["quantizer_key"]) or row["run_key"]
            if key in seen or not any(pd.notna(row.get(name)) for name in columns):
                continue
            seen.add(key)
            size = _size(part.configs.get(row["run_key"]))
            for signal in signals:
                if any(pd.notna(row.get(f"codebook/codes/used_{level}_{signal}")) for level in levels):
                    lines.append(_line(part.name, row, key, signal, levels, size, most))
    heads = [f"Level {level + 1}#" for level in levels]
    columns = ["Quantizer of", "Data set", "Seed#", "Signal", "Collisions#", *heads, "Size#", "Items#", "Distinct IDs#"]
    return flat(
        "codebooks",
        "Codebooks and collisions",
        "Codes in use at each level, and their perplexity behind the stroke: how many codes it would be if all were "
        "used alike. The bar is perplexity over the size of the codebook. Collisions: items less distinct IDs, before "
        "any disambiguation.",
        [*columns, "Quantizer"],
        lines,
    )


def _line(
    study: str, row: Mapping[str, Any], key: str, signal: str, levels: list[int], size: float | None, most: float
) -> list[Json]:
    used = []
    for level in levels:
        count, spread = (row.get(f"codebook/codes/{what}_{level}_{signal}") for what in ("used", "perplexity"))
        if count is None or pd.isna(count):
            used.append(cell(""))
            continue
        known = spread is not None and pd.notna(spread)
        said = f"{count:.0f} / {spread:.1f}" if known else f"{count:.0f}"
        share = min(1.0, float(spread if known else count) / (size or most or 1.0))
        used.append(cell(said, float(spread if known else count), bar=share))
    name = method_name(row["method"], row["label"], text(row["setting"]))
    return [
        cell(name, runs=row["run_key"]),
        cell(dataset_label(row["dataset"])),
        cell(row["seed"], float(row["seed"])),
        cell(signal),
        number(row.get("collisions/excess")),
        *used,
        number(size),
        *(number(row.get(f"collisions/{field}")) for field in ("items", "distinct")),
        cell(key[:8]),
    ]


def _size(config: Mapping[str, Any] | None) -> float | None:
    quantizer = (config or {}).get("quantizer")
    codes = quantizer.get("codes") if isinstance(quantizer, Mapping) else None
    return float(codes) if isinstance(codes, int | float) and codes > 0 else None
