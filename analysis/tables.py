"""Tables 3 and 4 of the paper: rows -> table -> LaTeX (booktabs) and its Markdown twin. Pure functions.

The other tables take their parts from here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from string import ascii_lowercase

import pandas as pd

from analysis.cells import Cell, Comparison, compare
from analysis.labels import METHOD_LABELS, METRIC_LABELS, Label, dataset_label
from analysis.markup import escape, latex_document, markdown_document
from analysis.rows import METRICS

DECIMALS = 4
"""Of a score. What looks equal is equal: the best of a tie are bold, but nothing is where all are equal."""
ABSENT = "--"
NOTE_LENGTH = 160
"""Characters of an error in a footnote; rows.csv has it whole."""
BEST = "The best performance is in bold font."
SECOND = "The best performance is in bold font, the second best {second}."


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Which methods a table compares, in the order of its columns. `name` is also the file's name.

    `spans` are headings above the columns, each with the number of columns that it is above. `emphasis` says what is
    emphasised: BEST or SECOND. `stacked`: so many columns that LaTeX sets deviations below their means.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    spans: tuple[tuple[str, int], ...] = ()
    emphasis: str = BEST
    stacked: bool = False


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
    """One number, or the word that stands for it, with the marks of its footnotes. `form` is the number's format;
    `runs` are the keys of the runs behind it, for formats that can show them."""

    mean: float | None
    sd: float | None = None
    word: str = ABSENT
    best: bool = False
    second: bool = False
    star: bool = False
    marks: tuple[str, ...] = ()
    form: str = f"{{:.{DECIMALS}f}}"
    runs: tuple[str, ...] = ()


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
    title: str
    emphasis: str = ""
    conditions: str
    heads: tuple[str, str] = ("Dataset", "Metrics")
    labels: tuple[Label, ...]
    spans: tuple[tuple[str, int], ...] = ()
    groups: tuple[tuple[Line, ...], ...]
    notes: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    repeated: bool
    stacked: bool = False

    def caption(self, second: str) -> str:
        """`second` is how the format emphasises the second best."""
        return " ".join(filter(None, (self.title, self.emphasis.format(second=second), self.conditions)))


def table(rows: pd.DataFrame, spec: TableSpec, split: str = "test") -> Table:
    """The table of `spec` over every data set of the rows."""
    comparison = compare(rows, spec.methods, split)
    notes = footnotes(note for d in comparison.datasets for m in spec.methods for note in comparison.cell(d, m).notes)
    ranked = 2 if spec.emphasis == SECOND else 1
    groups = tuple(tuple(_lines(comparison, dataset, notes, ranked)) for dataset in comparison.datasets)
    absent = any(entry.word == ABSENT for group in groups for line in group for entry in line.entries)
    return Table(
        name=spec.name,
        title=spec.title,
        emphasis=spec.emphasis,
        conditions=comparison.conditions,
        labels=tuple(METHOD_LABELS[method] for method in spec.methods),
        spans=spec.spans,
        groups=groups,
        notes=marked(notes),
        remarks=(*comparison.remarks, *([f"{ABSENT}: not part of the study."] if absent else [])),
        repeated=comparison.repeated,
        stacked=spec.stacked,
    )


def latex(table: Table) -> str:
    """A table environment, as wide as the page, that needs the packages booktabs and multirow.

    With many columns it needs graphicx, too, and fits itself to a page that is too narrow for it.
    """
    return latex_document(
        size="scriptsize" if table.stacked else "footnotesize" if table.repeated else "small",
        fitted=table.stacked,
        name=table.name,
        caption=escape(table.caption("underlined")),
        heads=table.heads,
        labels=[label.latex for label in table.labels],
        spans=table.spans,
        groups=[[row for x in g for row in _latex_rows(x, table.stacked and table.repeated)] for g in table.groups],
        notes=[(mark, escape(text, breakable=True)) for mark, text in table.notes],
        remarks=[escape(text, breakable=True) for text in table.remarks],
    )


def markdown(table: Table) -> str:
    """The same as text that a terminal shows as well as a web page.

    Markdown has no headings above several columns: they become part of labels that are equal, else a remark.
    """
    plain = [label.plain for label in table.labels]
    remarks = table.remarks
    above = [name for name, width in table.spans for _ in range(width)]
    if len(set(plain)) < len(plain):
        plain = [f"{span} {label}".strip() for span, label in zip(above, plain, strict=True)]
    elif above:
        below = {span: [x for x, name in zip(plain, above, strict=True) if name == span] for span in above if span}
        remarks = (
            f"{'; '.join(f'{span}: {names}' for span, x in below.items() if (names := ', '.join(x)))}.",
            *remarks,
        )
    body = [[x.dataset, x.metric, *map(_markdown_entry, x.entries)] for group in table.groups for x in group]
    return markdown_document(table.caption("in italics"), [*table.heads, *plain], body, table.notes, remarks)


def footnotes(texts: Iterable[str]) -> dict[str, str]:
    """Text of every note -> its mark, in reading order; equal texts share one."""
    return dict(zip(dict.fromkeys(map(shortened, texts)), _marks(), strict=False))


def marked(notes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The footnotes as a table has them: (mark, text)."""
    return tuple((mark, text) for text, mark in notes.items())


def _marks() -> Iterator[str]:
    """a, ..., z, aa, ab, ..."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def _lines(comparison: Comparison, dataset: str, notes: Mapping[str, str], ranked: int) -> Iterator[Line]:
    """The best are emphasised and, with `ranked` 2, the second best."""
    cells = [comparison.cell(dataset, method) for method in comparison.methods]
    for index, metric in enumerate(METRICS):
        rounded = sorted({round(cell.mean[metric], DECIMALS) for cell in cells if cell.mean}, reverse=True)
        order = rounded[:ranked] if len(rounded) > 1 else []
        yield Line(
            dataset=dataset_label(dataset) if index == 0 else "",
            metric=METRIC_LABELS[metric],
            entries=tuple(placed(entry(cell, metric, notes), order) for cell in cells),
        )


def entry(cell: Cell, metric: str, notes: Mapping[str, str], form: str = Entry.form) -> Entry:
    """What a table shows of one number of a cell."""
    return Entry(
        mean=cell.mean.get(metric),
        sd=cell.sd.get(metric),
        word="" if cell.mean else ABSENT if cell.state == "absent" else cell.state,
        marks=tuple(notes[shortened(note)] for note in cell.notes),
        form=form,
        runs=cell.runs,
    )


def placed(entry: Entry, order: Sequence[float]) -> Entry:
    """Emphasises an entry whose value is in `order`, the best first."""
    if entry.mean is None or round(entry.mean, DECIMALS) not in order:
        return entry
    place = order.index(round(entry.mean, DECIMALS))
    return replace(entry, best=place == 0, second=place == 1)


def shortened(note: str) -> str:
    text = " ".join(note.split())
    return text if len(text) <= NOTE_LENGTH else text[: NOTE_LENGTH - 3].rstrip() + "..."


def _latex_rows(line: Line, stacked: bool) -> Iterator[tuple[str, str, list[str], str]]:
    """One row or, stacked, a second one close below it with the deviations."""
    numbers = [_latex_entry(entry, stacked) for entry in line.entries]
    yield escape(line.dataset), escape(line.metric), numbers, "[-1.5pt]" if stacked else ""
    if stacked:
        deviations = ["" if e.sd is None else rf"{{\tiny$\pm$\,{e.form.format(e.sd)}}}" for e in line.entries]
        yield "", "", deviations, "[2pt]"


def _latex_entry(entry: Entry, stacked: bool) -> str:
    marks = rf"\textsuperscript{{{','.join(entry.marks)}}}" if entry.marks else ""
    if entry.mean is None:
        return (entry.word if entry.word == ABSENT else rf"\textit{{{entry.word}}}") + marks
    spread = "" if entry.sd is None or stacked else rf"\,{{\scriptsize$\pm$\,{entry.form.format(entry.sd)}}}"
    number = escape(entry.form.format(entry.mean)).replace("+", "$+$").replace("-", "$-$")
    return _emphasised(entry, number, r"\textbf{{{}}}", r"\underline{{{}}}", r"\textsuperscript{*}") + spread + marks


def _markdown_entry(entry: Entry) -> str:
    marks = f" [{','.join(entry.marks)}]" if entry.marks else ""
    if entry.mean is None:
        return entry.word + marks
    spread = "" if entry.sd is None else f" ± {entry.form.format(entry.sd)}"
    return _emphasised(entry, entry.form.format(entry.mean), "**{}**", "_{}_", "*") + spread + marks


def _emphasised(entry: Entry, number: str, bold: str, second: str, star: str) -> str:
    form = bold if entry.best else second if entry.second else "{}"
    return form.format(number) + (star if entry.star else "")
