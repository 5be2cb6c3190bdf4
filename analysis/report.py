"""Everything that a study's rows feed, written to one folder."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import conditions
from analysis.curves import EXPORT, load_curves
from analysis.figures import METHODS as FIGURE_4_METHODS
from analysis.figures import figure4, learning_curves, save
from analysis.rows import export_rows, exported_file, load_rows, open_store
from analysis.studies import read_study
from analysis.tables import TABLE_3, TABLE_4, TableSpec, latex, markdown, table
from bbqrec.errors import InputError
from bbqrec.store import Store

Writer = Callable[[pd.DataFrame, Path], None]


def write_report(source: Store | str | Path, study: str | Mapping[str, Any], out: str | Path) -> list[Path]:
    """Writes the tables and figures of a study, its rows and its learning curves to `out`; returns the files.

    `source` is a store, its URL or exported rows; `study` a name or, for a store, what a study file holds. Cells
    without a number are shown as such. All files are made before the first one is put in place. Raises InputError for a
    source or study that is not there, or an unwritable `out`.
    """
    if isinstance(study, str):
        study = {"name": study} if exported_file(source) else read_study(open_store(source), study)
    name = study["name"]
    rows = load_rows(source, study)
    curves = load_curves(source, rows)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out, prefix=".unfinished-"))
        try:
            for write in OUTPUTS.get(name, ()):
                write(rows, made)
            export_rows(rows, made / "rows.csv")
            curves.to_csv(made / EXPORT, index=False, lineterminator="\n")
            save(learning_curves(curves), made / "curves.png", f"Learning curves of study {name}")
            return [made_file.replace(out / made_file.name) for made_file in sorted(made.iterdir())]
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror or error})", "give a writable --out folder") from error


def _table(spec: TableSpec) -> Writer:
    def write(rows: pd.DataFrame, folder: Path) -> None:
        made = table(rows, spec)
        (folder / f"{spec.name}.tex").write_text(latex(made), encoding="utf-8")
        (folder / f"{spec.name}.md").write_text(markdown(made), encoding="utf-8")

    return write


def _figure4(rows: pd.DataFrame, folder: Path) -> None:
    made = figure4(rows)
    subject = f"BBQRec without one behaviour signal. {conditions(rows[rows['method'].isin(FIGURE_4_METHODS)], 'test')}"
    for suffix in ("pdf", "png"):
        save(made, folder / f"figure4.{suffix}", subject)


OUTPUTS: dict[str, tuple[Writer, ...]] = {
    "ablations": (_table(TABLE_3), _table(TABLE_4), _figure4),
}
"""What each study feeds beside its rows and learning curves, which every study has."""
