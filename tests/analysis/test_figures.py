"""Figure 4: heights, marks and error bars are the rows'; the same rows make the same bytes."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis.cells import compare
from analysis.curves import COLUMNS, load_curves
from analysis.figures import COLOURS, METHODS, figure4, learning_curves, save
from analysis.rows import export_rows, load_rows

ROOT = Path(__file__).resolve().parents[2]


def bars(axes) -> dict[tuple[str, str], float]:
    """(data set, colour) -> height."""
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    return {
        (names[round(bar.get_x() + bar.get_width() / 2)], to_hex(bar.get_facecolor()).upper()): bar.get_height()
        for bar in axes.patches
    }


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_heights_are_the_means(make_rows):
    rows = make_rows(("toys", "sports"), seeds=2)
    comparison = compare(rows, METHODS)
    for axes, metric, title in zip(figure4(rows).axes, ("recall@10", "ndcg@10"), ("Recall@10", "NDCG@10"), strict=True):
        assert axes.get_ylabel() == title
        assert axes.get_ylim()[0] == 0
        found = bars(axes)
        assert len(found) == 8
        for place, method in enumerate(METHODS):
            for dataset in ("toys", "sports"):
                height = found[dataset.capitalize(), COLOURS[place].upper()]
                assert height == pytest.approx(comparison.cell(dataset, method).mean[metric])


def test_error_bars_only_with_several_seeds(make_rows):
    def segments(rows):
        (lines,) = [c for c in figure4(rows).axes[0].collections if len(c.get_segments())] or [None]
        return [] if lines is None else lines.get_segments()

    assert segments(make_rows(("toys",), methods=("bbqrec",))) == []
    (segment,) = segments(make_rows(("toys",), methods=("bbqrec",), seeds=3))
    assert np.ptp(segment[:, 1]) == pytest.approx(2 * 0.02 * 0.097 * 1.37)


def test_missing_bars_are_words_in_their_place(partial_rows):
    figure = figure4(partial_rows)
    for axes in figure.axes:
        assert sorted(words(axes)) == ["failed", "n/a", "running"]
        assert len(axes.patches) == 3 * 4 - 3
        place = {text.get_text(): text.xy[0] for text in axes.texts}
        assert place["n/a"] == pytest.approx(0.3), "Beauty, fourth bar"
        assert place["failed"] == pytest.approx(1.9), "Synthetic, second bar"
    assert "On Beauty every model does without the image signal." in figure._supxlabel.get_text()


def test_a_score_of_zero_is_not_a_missing_bar(make_rows):
    rows = make_rows(("toys",))
    rows.loc[rows["method"] == "bbqrec/no-id", "test/ndcg@10"] = 0.0
    assert [words(axes) for axes in figure4(rows).axes] == [[], ["0"]]


def test_methods_not_in_the_study(make_rows):
    figure = figure4(make_rows(methods=("bbqrec", "bbqrec/no-id")))
    assert words(figure.axes[0]) == ["not run", "not run"]
    assert [t.get_text() for t in figure.legends[0].get_texts()][-1] == r"BBQRec$_{\neg\mathrm{image}}$"


def test_nothing_at_all(make_rows, set_status, tmp_path):
    empty = make_rows().iloc[:0]
    assert words(figure4(empty).axes[0]) == ["no results yet"]
    assert words(figure4(set_status(make_rows(), "pending", study="ablations")).axes[0])[-1] == "no results yet"
    save(figure4(empty), tmp_path / "figure4.pdf")


@pytest.mark.parametrize("datasets", [("synthetic",), ("toys", "beauty", "sports", "clothing")])
def test_nothing_overlaps_or_is_cut_off(make_rows, datasets):
    figure = figure4(make_rows(datasets, seeds=2))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    labels = [*figure.legends, *(t for a in figure.axes for t in (*a.get_xticklabels(), a.yaxis.label, a.title))]
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert all(b.x0 >= page.x0 - 1 and b.x1 <= page.x1 + 1 and b.y0 >= -1 and b.y1 <= page.y1 + 1 for b in boxes)
    for axes in figure.axes:
        ticks = [t.get_window_extent(renderer) for t in axes.get_xticklabels()]
        assert not any(left.overlaps(right) for left, right in pairwise(ticks))
        assert not figure.legends[0].get_window_extent(renderer).overlaps(axes.bbox)


def test_the_users_style_is_left_alone(make_rows):
    with matplotlib.rc_context({"font.size": 31}):
        figure = figure4(make_rows())
        assert matplotlib.rcParams["font.size"] == 31
    assert figure.legends[0].get_texts()[0].get_fontsize() == 8


def test_same_rows_same_bytes(tmp_path, partial_rows):
    path = export_rows(partial_rows, tmp_path / "rows.csv")
    script = (
        "import sys; from pathlib import Path; from analysis.rows import load_rows; from analysis.figures import *\n"
        "folder = Path(sys.argv[2]); folder.mkdir()\n"
        "for suffix in ('pdf', 'png'): save(figure4(load_rows(sys.argv[1])), folder / f'figure4.{suffix}', 'seed 0')\n"
    )
    (tmp_path / "first").mkdir()
    for suffix in ("pdf", "png"):
        save(figure4(load_rows(path)), tmp_path / "first" / f"figure4.{suffix}", "seed 0")
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "second")]
    environment = os.environ | {"PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": "222222222"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    for file in ("figure4.pdf", "figure4.png"):
        first, second = (tmp_path / name / file for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), file
    pdf = (tmp_path / "first" / "figure4.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert b"Subject" in pdf


def test_fonts_are_embedded_as_truetype(tmp_path, make_rows):
    if shutil.which("pdffonts") is None:
        pytest.skip("no pdffonts on this machine (Debian: poppler-utils)")
    path = save(figure4(make_rows()), tmp_path / "figure4.pdf")
    listed = subprocess.run(["pdffonts", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    assert listed
    for line in listed:
        assert "TrueType" in line, line
        assert "Type 3" not in line
        assert line.split()[-5] == "yes", f"embedded: {line}"


def test_learning_curves_mark_the_selected_epoch(tmp_path, store, publish, write_study):
    write_study(store, methods=("bbqrec", "bbqrec/s"), datasets=("toys", "beauty"), seeds=2)
    for dataset in ("toys", "beauty"):
        for seed in range(2):
            publish(store, dataset, "bbqrec", seed)
    publish(store, "toys", "bbqrec/s")
    figure = learning_curves(load_curves(store, load_rows(store)))
    assert [axes.get_title() for axes in figure.axes] == ["Beauty", "Toys"]
    assert [len(axes.lines) for axes in figure.axes] == [2 * 2, 3 * 2], "a curve and a dot for each run"
    assert all(list(axes.lines[1].get_xdata()) == [2] for axes in figure.axes)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["BBQRec", r"BBQRec$_{\mathrm{S}}$"]
    save(figure, tmp_path / "curves.png")


def test_no_learning_curves(tmp_path):
    assert words(learning_curves(pd.DataFrame(columns=list(COLUMNS))).axes[0]) == ["no finished run"]
