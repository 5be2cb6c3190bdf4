"""Figure 3 and the overview: points are the rows', what is missing is said."""

import itertools

import pandas as pd
import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.figure3 import figure3, panels
from analysis.figures import learning_curves, save
from analysis.overview import overview
from analysis.rows import METRICS, SPLITS, checked
from analysis.tables import latex, markdown

GRID = {"quantizer.levels": ("1", "2", "10"), "recommender.buckets": ("50", "100")}
BASE = {"quantizer.levels": "2", "recommender.buckets": "100"}


def score(field: str, value: str, metric: str, seed: int) -> float:
    base = 0.2 if value == BASE[field] else 0.02 * float(value) ** 0.5
    return base * (1 + METRICS.index(metric)) / 4 + 0.001 * seed


def made(datasets=("toys",), seeds=1, method="bbqrec", status="done") -> pd.DataFrame:
    rows = []
    for dataset, seed, (field, values) in itertools.product(datasets, range(seeds), GRID.items()):
        for value in values:
            key = f"{dataset}.{seed}." + ("base" if value == BASE[field] else f"{field}.{value}")
            rows.append(
                {"study": "hyperparameters", "profile": "small", "overrides": "", "note": None, "error": None}
                | {"method": method, "label": "BBQRec", "dataset": dataset, "seed": seed, "status": status}
                | {"setting": f"{field}={value}", "run_key": key, "quantizer_key": "q", "fingerprint": "f" * 64}
                | {f"{split}/{m}": score(field, value, m, seed) for split in SPLITS for m in METRICS}
            )
    return checked(pd.DataFrame(rows), "made rows")


def test_panels_in_the_study_s_order_with_values_by_size_and_the_common_run_as_base():
    found = panels(made(("toys", "beauty")))
    assert [(p.dataset, p.field, [v for v, _ in p.points], p.base) for p in found] == [
        ("beauty", "quantizer.levels", ["1", "2", "10"], "2"),
        ("beauty", "recommender.buckets", ["50", "100"], "100"),
        ("toys", "quantizer.levels", ["1", "2", "10"], "2"),
        ("toys", "recommender.buckets", ["50", "100"], "100"),
    ]


def test_lines_are_the_means_and_bands_the_deviations():
    figure = figure3(made(seeds=3))
    axes = figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    expected = [score("quantizer.levels", value, "ndcg@10", 1) for value in GRID["quantizer.levels"]]
    assert lines["N@10"] == pytest.approx(expected) and len(lines) == 4
    band = axes.collections[METRICS.index("ndcg@10")].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(min(expected) - 0.001)
    assert [tick.get_fontweight() for tick in axes.get_xticklabels()] == ["normal", "bold", "normal"]
    assert axes.get_xlabel() == "Length $L$" and axes.get_ylim()[0] == 0
    assert "Bands" in figure._supxlabel.get_text() and "seeds 0–2" in figure._supxlabel.get_text()


def test_a_panel_that_is_higher_than_the_first_is_whole_and_the_words_stay_on_the_page():
    rows = made(seeds=2)
    rows.loc[rows["setting"] == "recommender.buckets=50", [f"test/{m}" for m in METRICS]] = 0.9
    figure = figure3(rows)
    figure.draw_without_rendering()
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 0.9 for axes in figure.axes)
    box = figure._supxlabel.get_window_extent(figure.canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1


def test_what_is_missing_is_a_word_in_its_place(tmp_path):
    rows = made()
    failed = rows["setting"] == "quantizer.levels=10"
    rows.loc[failed, "status"], rows.loc[failed, "error"] = "failed", "loss is nan"
    axes = figure3(checked(rows, "rows")).axes[0]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("failed", 2)]
    assert list(axes.lines[0].get_xdata()) == [0, 1]
    save(figure3(made(status="pending")), tmp_path / "figure3.png")


def test_a_study_that_crosses_fields_has_no_panels_but_an_overview():
    rows = made().assign(setting=lambda r: r["setting"] + " recommender.beam=20")
    assert figure3(rows) is None
    assert "BBQRec quantizer.levels=10 recommender.beam=20" in markdown(overview(rows))


def test_the_overview_has_a_line_for_each_cell(tmp_path):
    table = overview(made(("toys", "beauty"), seeds=2))
    assert [len(group) for group in table.groups] == [5, 5]
    best = {line.metric: [entry.best for entry in line.entries] for line in table.groups[0]}
    assert best["BBQRec quantizer.levels=2"] == best["BBQRec recommender.buckets=100"] == [True] * 4
    assert not any(best["BBQRec quantizer.levels=10"])
    check_golden("overview.md", markdown(table))
    set_by_latex(tmp_path, DOCUMENTS[0], [latex(table)])


def test_settings_that_share_a_run_are_one_line_of_the_learning_curves():
    rows = made()[["dataset", "method", "label", "setting", "seed", "run_key"]].assign(key=0)
    curves = rows.merge(pd.DataFrame({"epoch": [1, 2], "valid/ndcg@10": [0.1, 0.2], "key": 0}), on="key")
    lines = [line.get_label() for line in learning_curves(curves).axes[0].lines if len(line.get_xdata()) == 2]
    assert sorted(lines) == [
        "BBQRec (base)",
        "BBQRec quantizer.levels=1",
        "BBQRec quantizer.levels=10",
        "BBQRec recommender.buckets=50",
    ]
