"""The command `python -m analysis`: tables, figures and a page from a store or from exported rows."""

import logging
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from tyro.extras import SubcommandApp

from analysis.ablations import ablation_table, losses
from analysis.baselines import TABLE_2, gains, table2
from analysis.claims import claims, claims_markdown
from analysis.collisions import table5
from analysis.costs import costs_markdown
from analysis.inference import load_measured, table6
from analysis.lint import lint
from analysis.page import watch_page, write_page
from analysis.paper import beside
from analysis.ranks import load_ranks
from analysis.report import write_report
from analysis.rows import exported_file, load_rows
from analysis.table1 import table1
from analysis.tables import TABLES, Table, latex, markdown
from analysis.tuning import load_tuned, tuning_latex, tuning_markdown
from analysis.whole import load_whole
from analysis.whole_report import write_whole
from bbqrec.errors import InputError

app = SubcommandApp()


@app.command(name="report")
def report(store: str = "runs", study: str | None = None, out: Path = Path("out"), pdf: bool = False) -> None:
    """Write everything that a store feeds: tables, figures, rows and curves of each study, the claims, report.tex.

    Example: python -m analysis report --store s3://bucket/runs --out out --pdf

    Args:
        store: Folder or URL of the results, or exported rows (a folder with rows.csv or rows.parquet, or with such
            folders in it, or the file).
        study: One study alone, straight into the folder: its name as its file in sweeps/, of which the latest counts,
            or one in particular, such as ablations-1a2b3c4d; a name that does not exist lists them.
        out: Folder for the files; what it holds under other names stays.
        pdf: Have LaTeX set report.tex, which one study alone has not.
    """
    if pdf and study is not None:
        raise InputError("--pdf sets the document of all studies", "leave out --study or --pdf")
    for path in write_whole(store, out, pdf) if study is None else write_report(_place(store, study), study, out):
        print(path)


@app.command(name="claims")
def print_claims(store: str = "runs") -> None:
    """Print what the paper claims, and whether the studies of a store bear it out.

    Args:
        store: Folder or URL of the results, or a folder of exported rows.
    """
    print(claims_markdown(claims(load_whole(store))), end="")


@app.command(name="lint")
def print_lint(table: Annotated[Path, tyro.conf.Positional]) -> int:
    """Print what cannot be true of a table of scores; the exit status is 1 if there is anything.

    Args:
        table: rows.csv of a report, or a CSV with the columns table, dataset, metric, method, value.
    """
    found = lint(table)
    for finding in found:
        print(finding)
    return 1 if found else 0


@app.command(name="table1")
def print_table1(store: str = "runs", study: str = "ablations", tex: bool = False) -> None:
    """Print Table 1: the data sets of a study.

    Args:
        store: Folder or URL of the results, or exported rows.
        study: Name of the study, as for report.
        tex: LaTeX instead of Markdown.
    """
    _print(table1(load_rows(_place(store, study), study)), tex)


@app.command(name="table2")
def print_table2(store: str = "runs", study: str = "baselines", tex: bool = False, paper: bool = False) -> None:
    """Print Table 2: the baselines and the full model, its improvement and whether it is significant.

    Args:
        store: Folder or URL of the results, or exported rows; without ranks.npz beside them nothing is tested.
        study: Name of the study, as for report.
        tex: LaTeX instead of Markdown.
        paper: Markdown of the paper's numbers beside ours.
    """
    rows = _rows(store, study, tex, paper)
    if paper:
        print(beside(rows, TABLE_2, improvement=True), end="")
    else:
        _print(table2(rows, gains(rows, load_ranks(_place(store, study), rows))), tex)


@app.command(name="table3")
def print_table3(store: str = "runs", study: str = "ablations", tex: bool = False, paper: bool = False) -> None:
    """Print Table 3: the full model against w/o MIM, w/o Rec and w/o U.

    Args:
        store: Folder or URL of the results, or exported rows.
        study: Name of the study, as for report.
        tex: LaTeX instead of Markdown.
        paper: Markdown of the paper's numbers beside ours.
    """
    _print_comparison("table3", store, study, tex, paper)


@app.command(name="table4")
def print_table4(store: str = "runs", study: str = "ablations", tex: bool = False, paper: bool = False) -> None:
    """Print Table 4: the full model against S and E.

    Args:
        store: Folder or URL of the results, or exported rows.
        study: Name of the study, as for report.
        tex: LaTeX instead of Markdown.
        paper: Markdown of the paper's numbers beside ours.
    """
    _print_comparison("table4", store, study, tex, paper)


@app.command(name="table5")
def print_table5(store: str = "runs", study: str = "collisions", tex: bool = False) -> None:
    """Print Table 5: items that share a semantic ID, by the number of levels.

    Args:
        store: Folder or URL of the results, or exported rows.
        study: Name of the study, as for report.
        tex: LaTeX instead of Markdown.
    """
    _print(table5(load_rows(_place(store, study), study)), tex)


@app.command(name="table6")
def print_table6(measured: str = "out/inference", tex: bool = False) -> None:
    """Print Table 6: seconds per user of TIGER and the full model.

    Args:
        measured: inference.json that sweeps/inference.py wrote, or its folder.
        tex: LaTeX instead of Markdown.
    """
    _print(table6(load_measured(measured)), tex)


@app.command(name="costs")
def print_costs(store: str = "runs", study: str = "ablations") -> None:
    """Print what a study cost by method, each run counted once, and what it would have cost without sharing.

    Args:
        store: Folder or URL of the results, or exported rows.
        study: Name of the study, as for report.
    """
    print(costs_markdown(load_rows(_place(store, study), study)), end="")


@app.command(name="tuning")
def print_tuning(tuned: Path = Path("sweeps/tuned"), tex: bool = False) -> None:
    """Print what tuning tried and chose, of every method and data set.

    Args:
        tuned: Folder of the tuned configs, or of one data set's.
        tex: LaTeX instead of Markdown.
    """
    found = load_tuned(tuned)
    print(tuning_latex(found) if tex else tuning_markdown(found), end="")


@app.command(name="page")
def page(store: str = "runs", out: Path = Path("out/index.html"), watch: int | None = None) -> None:
    """Write one self-contained HTML page of all studies: tables, figures, tests, and what stands behind every number.

    Example: python -m analysis page --store runs --out out/index.html --watch 10

    Args:
        store: Folder or URL of the results, or a folder of exported rows (or of folders with such).
        out: The file of the page.
        watch: Seconds between two pages while a study runs, until it is interrupted; an open page reloads itself.
    """
    if watch is None:
        print(write_page(store, out))
        return
    print(f"{out}: written every {watch} s, Ctrl-C ends it", flush=True)
    with closing(watch_page(store, out, watch)) as pages, suppress(KeyboardInterrupt):
        for _ in pages:
            pass


def _print_comparison(name: str, store: str, study: str, tex: bool, paper: bool) -> None:
    rows = _rows(store, study, tex, paper)
    if paper:
        print(beside(rows, TABLES[name]), end="")
    else:
        found = losses(rows, load_ranks(_place(store, study), rows), TABLES[name])
        _print(ablation_table(rows, TABLES[name], found), tex)


def _rows(store: str, study: str, tex: bool, paper: bool) -> pd.DataFrame:
    if tex and paper:
        raise InputError("--paper has no LaTeX", "leave out --tex")
    return load_rows(_place(store, study), study)


def _place(store: str, study: str) -> str:
    """Where a study is: in the store or, in a folder of exported reports, in the folder of its name."""
    own = Path(store, study)
    return str(own) if "://" not in store and exported_file(store) is None and exported_file(own) else store


def _print(made: Table, tex: bool) -> None:
    print(latex(made) if tex else markdown(made), end="")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; bad input ends in one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING, stream=sys.stdout)
    try:
        status = app.cli(prog="python -m analysis", description=__doc__, args=args)
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
