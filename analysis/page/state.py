"""Cells without a number: what runs and how long still, what failed and why, what waits."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.costs import duration
from analysis.labels import dataset_label
from analysis.page.live import Live
from analysis.page.tables import Json, cell, flat, method_name, seconds, text
from analysis.whole import StudyPart
from bbqrec.store import Store

PATH = re.compile(r"(?<![\w.:/])~?/(?:[^\s/'\"]+/)+")
"""The folders of an absolute path: they say where somebody's files are, which is nobody's business."""

STORE = re.compile(r"(?<![-\w])store (?:\w+://|/)[^\s']+?(?=[:,;]?(?:\s|$))")


MACHINE = re.compile(r"(--(?:cluster|mlflow)[ =])(?!--)\S+")
"""Of a command: a machine's name, perhaps with a password."""

NODE = re.compile(r" on \S+(?= is not the data set)")
"""Of an error: a machine's name."""


def public(said: str, source: Any = None) -> str:
    """A text for a page that may be published: without the place of the store, machines of a command, and the folders
    of absolute paths."""
    said = NODE.sub("", MACHINE.sub(r"\1…", STORE.sub("the store", said)))
    if isinstance(source, Store):
        said = said.replace(f"{source.url}/", "").replace(source.url, "the store")
    return PATH.sub("…/", said)


def published_part(part: StudyPart) -> StudyPart:
    """A study whose errors and notes are `public`."""
    said = {
        column: pd.Series(
            [None if text(value) is None else public(str(value), part.source) for value in part.rows[column]],
            index=part.rows.index,
            dtype=object,
        )
        for column in ("error", "note")
    }
    return replace(part, rows=part.rows.assign(**said))


def last_line(error: str | None) -> str:
    """Of an error, without empty lines; "" if there is none."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def state_tables(studies: Mapping[str, StudyPart], live: Mapping[str, Live]) -> list[Json]:
    """The tables of the cells that run, failed and wait, those that are not empty."""
    lines: dict[str, list[list[Json]]] = {"running": [], "failed": [], "pending": []}
    for part in studies.values():
        for row in part.rows[part.rows["status"] != "done"].to_dict("records"):
            key, status = row["run_key"], row["status"]
            name = method_name(row["method"], row["label"], text(row["setting"]))
            line = [cell(name, runs=key), cell(dataset_label(row["dataset"])), cell(part.name)]
            line.append(cell(row["seed"], float(row["seed"])))
            error = last_line(text(row["error"]))
            if status == "running":
                line += _progress(live.get(key))
            else:
                line.append(cell(error or ("no reason recorded" if status == "failed" else "")))
            lines[status].append(line)
    first = ["Method", "Data set", "Study", "Seed#"]
    heads = {
        "running": ("Running", [*first, "Stage", "Epoch#", "Time left#", "Last score#"]),
        "failed": ("Failed", [*first, "Last error"]),
        "pending": ("Pending", [*first, "Trouble"]),
    }
    about = {
        "running": "As of each run's last checkpoint. Time left: if it takes all its epochs; it may stop earlier.",
        "failed": "The last line of each error; a cell that waits for a failed run fails with it.",
        "pending": "Not begun, or interrupted: the study's command goes on with them.",
    }
    return [
        flat(f"cells-{state}", heads[state][0], about[state], heads[state][1], found)
        for state, found in lines.items()
        if found
    ]


def _progress(live: Live | None) -> list[Json]:
    if live is None:
        return [cell("no checkpoint yet"), cell(""), cell(""), cell("")]
    done = f"{live.epoch} of {live.epochs}" if live.epochs else str(live.epoch)
    score = live.curve[-1][1] if live.curve else None
    return [
        cell(live.stage),
        cell(done, float(live.epoch), bar=min(1.0, live.epoch / live.epochs) if live.epochs else None),
        seconds(live.left),
        cell("" if score is None else f"{score:.4f}", score),
    ]


def time_left(part: StudyPart, live: Mapping[str, Live]) -> str:
    """What is still to compute, by the mean cost of the study's finished cells of each method; "" if not known."""
    rows = part.rows
    column = "costs/seconds" if (rows["stage"] == "quantizer").any() else "costs/recommender_seconds"
    if column not in rows:
        return ""
    ahead = rows[rows["status"].isin(("running", "pending"))].drop_duplicates("run_key")
    done = rows[(rows["status"] == "done") & rows[column].notna()].drop_duplicates("run_key")
    if ahead.empty or done.empty:
        return ""
    usual = float(done[column].mean())
    by_method = done.groupby(["dataset", "method"])[column].mean().to_dict()
    total = 0.0
    for row in ahead.to_dict("records"):
        running = live.get(row["run_key"])
        expected = by_method.get((row["dataset"], row["method"]), usual)
        left = running.left if running is not None and running.stage == row["stage"] else None
        total += expected if left is None or not pd.notna(left) else left
    return f"about {duration(total)} of computing to go"
