"""Tables 3 and 4 of the paper: rows -> table -> LaTeX (booktabs) and its Markdown twin. Pure functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from string import ascii_lowercase

import pandas as pd

from analysis.cells import Cell, Comparison, compare
from analysis.labels import METHOD_LABELS, METRIC_LABELS, Label, dataset_label
from analysis.markup import escape, latex_document, markdown_document
from analysis.rows import METRICS

DECIMALS = 4
"""As in the paper. What looks equal is equal: the best of a tie are bold, but nothing is where all are equal."""
ABSENT = "--"
NOTE_LENGTH = 160
"""Characters of an error in a footnote; rows.csv has it whole."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Which methods a table compares, in the order of its columns. `name` is also the file's name."""

    name: str
    title: str
    methods: tuple[str, ...]


TABLE_3 = TableSpec(
    name="table3",
    title="Performance comparison of BBQRec and its three variants: without MIM (mutual information minimisation), "
    "without Rec (contrastive task and ID) and without U (shared codebook).",
    methods=("bbqrec/no-mim", "bbqrec/no-rec", "bbqrec/no-u", "bbqrec"),
)
TABLE_4 = TableSpec(
    name="table4",
    title="Performance comparison of BBQRec, its variant S without the similarity module, "
    "and its variant E with inherited code embeddings.",
    methods=("bbqrec/s", "bbqrec/e", "bbqrec"),
)
TABLES = {spec.name: spec for spec in (TABLE_3, TABLE_4)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number, or the word that stands for it, with the marks of its footnotes."""

    mean: float | None
    sd: float | None
    word: str
    best: bool
    marks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one data set; `dataset` only on the first line of its group."""

    dataset: str
    metric: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What both formats render. `groups` has the lines of one data set each; `notes` are marked, `remarks` are not."""

    name: str
    caption: str
    labels: tuple[Label, ...]
    groups: tuple[tuple[Line, ...], ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    repeated: bool


def table(rows: pd.DataFrame, spec: TableSpec, split: str = "test") -> Table:
    """The table of `spec` over every data set of the rows."""
    comparison = compare(rows, spec.methods, split)
    notes = _footnotes(comparison)
    groups = tuple(tuple(_lines(comparison, dataset, notes)) for dataset in comparison.datasets)
    absent = any(entry.word == ABSENT for group in groups for line in group for entry in line.entries)
    return Table(
        name=spec.name,
        caption=f"{spec.title} The best performance is in bold font. {comparison.conditions}",
        labels=tuple(METHOD_LABELS[method] for method in spec.methods),
        groups=groups,
        notes=tuple((mark, text) for text, mark in notes.items()),
        remarks=(*comparison.remarks, *([f"{ABSENT}: not part of the study."] if absent else [])),
        repeated=comparison.repeated,
    )


def latex(table: Table) -> str:
    """A table environment, as wide as the page, that needs the packages booktabs and multirow."""
    return latex_document(
        size="footnotesize" if table.repeated else "small",
        name=table.name,
        caption=escape(table.caption),
        labels=[label.latex for label in table.labels],
        groups=[[(escape(x.dataset), x.metric, [_latex_entry(e) for e in x.entries]) for x in g] for g in table.groups],
        notes=[(mark, escape(text, breakable=True)) for mark, text in table.notes],
        remarks=[escape(text, breakable=True) for text in table.remarks],
    )


def markdown(table: Table) -> str:
    """The same as text that a terminal shows as well as a web page."""
    header = ["Dataset", "Metrics", *(label.plain for label in table.labels)]
    body = [[x.dataset, x.metric, *map(_markdown_entry, x.entries)] for group in table.groups for x in group]
    return markdown_document(table.caption, header, body, table.notes, table.remarks)


def _footnotes(comparison: Comparison) -> dict[str, str]:
    """Text of every note -> its mark, in reading order; equal texts share one."""
    texts = [
        _shortened(note)
        for dataset in comparison.datasets
        for method in comparison.methods
        for note in comparison.cell(dataset, method).notes
    ]
    return dict(zip(dict.fromkeys(texts), _marks(), strict=False))


def _marks() -> Iterator[str]:
    """a, ..., z, aa, ab, ..."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def _lines(comparison: Comparison, dataset: str, notes: dict[str, str]) -> Iterator[Line]:
    cells = [comparison.cell(dataset, method) for method in comparison.methods]
    for index, metric in enumerate(METRICS):
        rounded = [round(cell.mean[metric], DECIMALS) for cell in cells if cell.mean]
        best = max(rounded) if len(set(rounded)) > 1 else None
        yield Line(
            dataset=dataset_label(dataset) if index == 0 else "",
            metric=METRIC_LABELS[metric],
            entries=tuple(_entry(cell, metric, best, notes) for cell in cells),
        )


def _entry(cell: Cell, metric: str, best: float | None, notes: dict[str, str]) -> Entry:
    mean = cell.mean.get(metric)
    return Entry(
        mean=mean,
        sd=cell.sd.get(metric),
        word="" if cell.mean else ABSENT if cell.state == "absent" else cell.state,
        best=mean is not None and best is not None and round(mean, DECIMALS) == best,
        marks=tuple(notes[_shortened(note)] for note in cell.notes),
    )


def _shortened(note: str) -> str:
    text = " ".join(note.split())
    return text if len(text) <= NOTE_LENGTH else text[: NOTE_LENGTH - 3].rstrip() + "..."


def _latex_entry(entry: Entry) -> str:
    marks = rf"\textsuperscript{{{','.join(entry.marks)}}}" if entry.marks else ""
    if entry.mean is None:
        return (entry.word if entry.word == ABSENT else rf"\textit{{{entry.word}}}") + marks
    sd = "" if entry.sd is None else rf"\,{{\scriptsize$\pm$\,{entry.sd:.{DECIMALS}f}}}"
    return _emphasised(entry, r"\textbf{{{}}}".format) + sd + marks


def _markdown_entry(entry: Entry) -> str:
    marks = f" [{','.join(entry.marks)}]" if entry.marks else ""
    if entry.mean is None:
        return entry.word + marks
    sd = "" if entry.sd is None else f" ± {entry.sd:.{DECIMALS}f}"
    return _emphasised(entry, "**{}**".format) + sd + marks


def _emphasised(entry: Entry, bold: Callable[[str], str]) -> str:
    number = f"{entry.mean:.{DECIMALS}f}"
    return bold(number) if entry.best else number
