"""Everything that a study's rows feed, written to one folder."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.ablations import ablation_table, losses
from analysis.baselines import TABLE_2, gains, table2
from analysis.cells import conditions
from analysis.collisions import table5
from analysis.contrasts import frame
from analysis.costs import cell_costs, costs_markdown
from analysis.curves import EXPORT, load_curves
from analysis.figure3 import figure3
from analysis.figures import METHODS as FIGURE_4_METHODS
from analysis.figures import figure4, learning_curves, save
from analysis.inference import load_measured, table6
from analysis.overview import overview
from analysis.paper import beside
from analysis.ranks import EXPORT as RANKS_EXPORT
from analysis.ranks import Ranks, export_ranks, load_ranks
from analysis.rows import export_rows, exported_file, load_rows, open_store
from analysis.studies import read_study
from analysis.tables import TABLE_3, TABLE_4, Table, TableSpec, latex, markdown
from bbqrec.errors import InputError
from bbqrec.store import Store

Source = Store | str | Path
Writer = Callable[[pd.DataFrame, Ranks, Path], None]
"""Writes what rows and ranks feed to a folder."""


def write_report(source: Source, study: str | Mapping[str, Any], out: str | Path) -> list[Path]:
    """Writes the tables and figures of a study, its rows, ranks, costs and learning curves to `out`; returns the files.

    Quantizers have no ranks and curves. `source` is a store, its URL or exported rows; `study` a name or, for a store,
    what a study file holds. Cells without a number are shown as such. All files are made before the first one is put in
    place. Raises InputError for a source or study that is not there, or an unwritable `out`.
    """
    if isinstance(study, str):
        study = {"name": study} if exported_file(source) else read_study(open_store(source), study)
    rows = load_rows(source, study)
    if (rows["stage"] == "quantizer").any():
        return write_rows(study["name"], rows, {}, None, out)
    return write_rows(study["name"], rows, load_ranks(source, rows), load_curves(source, rows), out)


def write_rows(name: str, rows: pd.DataFrame, ranks: Ranks, curves: pd.DataFrame | None, out: str | Path) -> list[Path]:
    """The same of what is read already; `curves` is None for quantizers."""

    def fill(folder: Path) -> None:
        for write in OUTPUTS.get(name, (_overview,) if curves is not None else ()):
            write(rows, ranks, folder)
        export_rows(rows, folder / "rows.csv")
        _write_csv(cell_costs(rows), folder / "costs.csv")
        (folder / "costs.md").write_text(costs_markdown(rows), encoding="utf-8")
        if curves is not None:
            _write_csv(curves, folder / EXPORT)
            save(learning_curves(curves), folder / "curves.png", f"Learning curves of study {name}")

    return in_place(fill, Path(out))


def write_inference(measured: str | Path, out: str | Path) -> list[Path]:
    """Writes Table 6 of an inference.json, or of the one in a folder, to `out`; returns the files."""
    made = table6(load_measured(measured))
    return in_place(lambda folder: write_table(made, folder), Path(out))


def in_place(fill: Callable[[Path], object], out: Path) -> list[Path]:
    """Moves the files that `fill` makes in a folder to `out`; all are made before the first one is put in place."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out, prefix=".unfinished-"))
        try:
            fill(made)
            return [made_file.replace(out / made_file.name) for made_file in sorted(made.iterdir())]
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror or error})", "give a writable --out folder") from error


def write_table(made: Table, folder: Path) -> None:
    """As LaTeX and as Markdown."""
    (folder / f"{made.name}.tex").write_text(latex(made), encoding="utf-8")
    (folder / f"{made.name}.md").write_text(markdown(made), encoding="utf-8")


def _ablations(*specs: TableSpec) -> Writer:
    """Tables of the full model and its variants, and what their marks are made of."""

    def write(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
        tested = []
        for spec in specs:
            found = losses(rows, ranks, spec)
            write_table(ablation_table(rows, spec, found), folder)
            (folder / f"{spec.name}_paper.md").write_text(beside(rows, spec), encoding="utf-8")
            tested.append(frame(found).assign(table=spec.name))
        _write_csv(pd.concat(tested), folder / "significance.csv")
        export_ranks(ranks, folder / RANKS_EXPORT)

    return write


def _table2(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
    compared = gains(rows, ranks)
    write_table(table2(rows, compared), folder)
    (folder / "table2_paper.md").write_text(beside(rows, TABLE_2, improvement=True), encoding="utf-8")
    _write_csv(frame(compared).assign(table=TABLE_2.name), folder / "significance.csv")
    export_ranks(ranks, folder / RANKS_EXPORT)


def _write_csv(made: pd.DataFrame, path: Path) -> None:
    made.to_csv(path, index=False, lineterminator="\n")


def _table5(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
    write_table(table5(rows), folder)


def _figure4(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
    made = figure4(rows)
    subject = f"BBQRec without one behaviour signal. {conditions(rows[rows['method'].isin(FIGURE_4_METHODS)], 'test')}"
    for suffix in ("pdf", "png"):
        save(made, folder / f"figure4.{suffix}", subject)


def _overview(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
    write_table(overview(rows), folder)
    if ranks:  # the table tests nothing, but the claims do
        export_ranks(ranks, folder / RANKS_EXPORT)


def _figure3(rows: pd.DataFrame, ranks: Ranks, folder: Path) -> None:
    for split, name in (("test", "figure3"), ("valid", "figure3_validation")):
        made = figure3(rows, split)
        for suffix in ("pdf", "png") if made else ():
            save(made, folder / f"{name}.{suffix}", f"Scores by one field at a time. {conditions(rows, split)}")


OUTPUTS: dict[str, tuple[Writer, ...]] = {
    "ablations": (_ablations(TABLE_3, TABLE_4), _figure4, _overview),
    "baselines": (_table2, _overview),
    "collisions": (_table5,),
    "hyperparameters": (_overview, _figure3),
}
"""What each study feeds beside its rows, costs and learning curves. One that is not named here has an overview."""
