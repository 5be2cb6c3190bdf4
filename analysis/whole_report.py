"""Everything that a store, or a folder of exported reports, feeds: all tables and figures, the claims, one document."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pandas as pd

from analysis.claims import Claim, claims, claims_frame, claims_latex, claims_markdown
from analysis.inference import FILE as MEASURED
from analysis.labels import dataset_label
from analysis.markup import LATEX, escape
from analysis.page.model import page_model
from analysis.page.render import put, render
from analysis.report import OUTPUTS, Source, in_place, write_inference, write_rows, write_table
from analysis.table1 import table1
from analysis.whole import StudyPart, Whole, load_whole
from bbqrec.errors import InputError

DOCUMENT, PAGE = "report.tex", "index.html"
SECTIONS = (
    ("Performance comparison", ("baselines/table2.tex",), ()),
    ("Ablation study", ("ablations/table3.tex", "ablations/table4.tex"), ()),
    (
        "Hyper-parameters",
        ("hyperparameters/overview.tex",),
        (("hyperparameters/figure3.pdf", "Scores by one hyper-parameter at a time, on the test split."),),
    ),
    (
        "Behaviour signals",
        (),
        (
            (
                "ablations/figure4.pdf",
                "BBQRec without one of its behaviour signals; error bars: one standard deviation over seeds.",
            ),
        ),
    ),
    ("Item collisions", ("collisions/table5.tex",), ()),
    ("Inference", ("inference/table6.tex",), ()),
)
"""Of the document, as the paper has them: title, tables, figures with their captions."""

_DOCUMENT = LATEX.from_string(r"""% Written by `python -m analysis report`: pdflatex or tectonic sets it.
\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{array,booktabs,float,graphicx,longtable,multirow}
% The tables are made for a paper, where they float; here each stays with its section.
\renewenvironment{table*}[1][]{\begin{table}[H]}{\end{table}}
\ifdefined\pdfinfoomitdate\pdfinfoomitdate=1\pdftrailerid{}\pdfsuppressptexinfo=-1\fi
\AtBeginDocument{\setlength{\LTcapwidth}{\textwidth}}
\title{BBQRec: what was run, and what it says}
\author{}
\date{}
\begin{document}
\maketitle
\section{Data}
\input{table1.tex}
<% for title, tables, figures in sections %>
\section{<< title >>}
<% for table in tables %>
\input{<< table >>}
<% endfor %>
<% for figure, caption in figures %>
\begin{figure}[H]
  \centering
  \includegraphics[width=\linewidth]{<< figure >>}
  \caption{<< caption >>}
\end{figure}
<% endfor %>
<% endfor %>
\section{The paper's claims}
\input{claims.tex}
\section{Where the numbers come from}
\begin{itemize}
<% for line in origins %>
  \item << line >>
<% endfor %>
\end{itemize}
\end{document}
""")


def write_whole(source: Source, out: str | Path, pdf: bool = False) -> list[Path]:
    """Writes a folder per study (as `write_report`), and beside them Table 1, the claims, report.tex and index.html.

    Returns the files. What is damaged is left out and said in the document. `pdf` has LaTeX set it as well. Raises
    InputError for a source without any study, an unwritable `out`, and for `pdf` without LaTeX.
    """
    out = Path(out)
    whole = load_whole(source)
    written: list[Path] = []
    for part in whole.studies.values():
        curves = None if (part.rows["stage"] == "quantizer").any() else part.curves
        written += write_rows(part.name, part.rows, part.ranks, curves, out / part.name)
    if whole.inference is not None:
        written += write_inference(whole.inference, out / "inference")
        written += in_place(lambda folder: shutil.copy(whole.inference, folder / MEASURED), out / "inference")
    found = claims(whole)
    there = {path.relative_to(out).as_posix() for path in written}
    written += in_place(lambda folder: _fill(whole, found, there, folder), out)
    written.append(put(render(page_model(whole, found)), out / PAGE))
    if pdf:
        written.append(_set(out))
    return written


def _fill(whole: Whole, found: list[Claim], written: set[str], folder: Path) -> None:
    """`written`: what the document may show, by name; another report may have left more in its folder."""
    write_table(table1(pd.concat([part.rows for part in whole.studies.values()])), folder)
    claims_frame(found).to_csv(folder / "claims.csv", index=False, lineterminator="\n")
    (folder / "claims.md").write_text(claims_markdown(found), encoding="utf-8")
    (folder / "claims.tex").write_text(claims_latex(found), encoding="utf-8")
    there = []
    for title, tables, figures in SECTIONS:
        kept = [name for name in tables if name in written], [f for f in figures if f[0] in written]
        there += [(title, *kept)] if any(kept) else []
    known = {name for _, tables, _ in SECTIONS for name in tables}
    own = [name for name in whole.studies if name not in OUTPUTS]
    others = [f"{name}/overview.tex" for name in own if f"{name}/overview.tex" in written]
    if extra := [name for name in others if name not in known]:
        there.append(("Further studies", extra, []))
    origins = [escape(line) for part in whole.studies.values() for line in [_origin(part)]]
    origins += [escape(trouble) for trouble in whole.troubles]
    (folder / DOCUMENT).write_text(_DOCUMENT.render(sections=there, origins=origins), encoding="utf-8")


def _origin(part: StudyPart) -> str:
    """Cells, profile, commits, devices and cost of a study in a sentence."""
    rows, done = part.rows, part.rows[part.rows["status"] == "done"]
    words = [f"Study {part.name}: {len(done)} of {len(rows)} cells done"]
    words += [f"data sets {', '.join(dataset_label(d) for d in rows['dataset'].unique())}"]
    words += [f"profile {', '.join(p)}" for p in [list(rows["profile"].dropna().unique())] if p]
    for column, what in (
        ("provenance/commit", "commit"),
        ("provenance/device", "device"),
        ("provenance/torch", "torch"),
    ):
        values = [str(v) for v in done[column].dropna().unique()] if column in done else []
        words += (
            [f"{what} {', '.join(value[:12] if what == 'commit' else value for value in values)}"] if values else []
        )
    return f"{'; '.join(words)}."


def _set(out: Path) -> Path:
    """The document as PDF, by tectonic or pdflatex."""
    engine = next((name for name in ("tectonic", "pdflatex") if shutil.which(name)), None)
    if engine is None:
        raise InputError("there is no LaTeX to set report.tex with", "install tectonic or pdflatex, or leave out --pdf")
    options = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--outdir" if engine == "tectonic" else "-output-directory", folder]
        for _ in range(1 if engine == "tectonic" else 3):  # longtable measures its columns in the first runs
            done = subprocess.run([engine, *options, *place, DOCUMENT], cwd=out, capture_output=True, check=False)
        made = Path(folder, DOCUMENT).with_suffix(".pdf")
        if done.returncode or not made.exists():
            said = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("!")]
            raise InputError(
                f"{engine} could not set {out / DOCUMENT} ({' '.join(said) or 'no error named'})", "see it"
            )
        return Path(shutil.copy(made, out / made.name))
