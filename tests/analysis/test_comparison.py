"""Table 2: golden files, improvements of either sign, what is tested and what is marked, a LaTeX page that fits."""

import numpy as np
import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex
from scipy import stats

from analysis.baselines import GROUPS, TABLE_2, gains, table2
from analysis.contrasts import Side
from analysis.contrasts import frame as frame_of
from analysis.labels import METHOD_LABELS
from analysis.tables import latex, markdown
from bbqrec.errors import InputError
from bbqrec.metrics import scores, user_scores

FOUR = ("toys", "beauty", "sports", "clothing")


def made_of(rows, ranks):
    return table2(rows, gains(rows, ranks))


@pytest.fixture
def studies(make_baselines, set_status):
    """Name of the golden files -> rows and ranks."""
    rows, ranks = make_baselines(("toys", "synthetic"), seeds=2)
    partial = set_status(rows, "failed", "loss is nan at epoch 3, step 17", dataset="toys", method="letter")
    partial = set_status(partial, "failed", "out of memory", dataset="toys", method="bbqrec", seed=1)
    partial = set_status(partial, "pending", dataset="synthetic", method="bbqrec")
    partial = set_status(partial, "running", dataset="synthetic", method="gru4rec", seed=0)
    partial = partial[~partial["method"].isin(("missrec", "vq-rec"))].reset_index(drop=True)
    return {
        "four": make_baselines(FOUR, seeds=3),
        "one_seed": make_baselines(("synthetic",)),
        "partial": (partial, ranks),
        "untested": (make_baselines(("toys",))[0], {}),
        "pending": (set_status(make_baselines()[0], "pending", study="baselines"), {}),
        "empty": (make_baselines()[0].iloc[:0], {}),
    }


@pytest.mark.parametrize("name", ["four", "one_seed", "partial", "untested", "pending", "empty"])
def test_golden(studies, name):
    made = made_of(*studies[name])
    check_golden(f"{name}_table2.tex", latex(made))
    check_golden(f"{name}_table2.md", markdown(made))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_latex_sets_it_on_one_page(tmp_path, studies, document):
    set_by_latex(tmp_path, document, [latex(made_of(*study)) for study in studies.values()])


def with_score(rows, method, **values):
    """The rows of `toys` with other test scores of a method."""
    rows = rows.copy()
    for metric, value in values.items():
        rows.loc[(rows["method"] == method) & (rows["dataset"] == "toys"), f"test/{metric.replace('_', '@')}"] = value
    return rows


def entries(made, metric):
    return next(line.entries for line in made.groups[0] if line.metric == metric)


def test_columns_are_the_papers(make_baselines):
    made = made_of(*make_baselines())
    names = ["GRU4Rec", "BERT4Rec", "SASRec", "GRU4Rec_F", "SASRec_F", "NOVA-BERT", "MISSRec", "VQ-Rec", "TIGER"]
    assert [label.plain for label in made.labels] == [*names, "LETTER", "BBQRec", "Improv."]
    assert made.spans == (("Traditional", 3), ("Modality-fused", 4), ("Vector-quantized", 4), ("", 1))
    assert sum(width for _, width in made.spans) == len(made.labels)
    assert r"\cmidrule(lr){3-5}\cmidrule(lr){6-9}\cmidrule(lr){10-13}" in latex(made)
    assert {method for methods in GROUPS.values() for method in methods} <= METHOD_LABELS.keys()


def test_the_improvement_is_over_the_best_baseline_and_signed(make_baselines):
    rows, _ = make_baselines()
    rows = with_score(rows, "bbqrec", recall_5=0.09, recall_10=0.1)
    for place, method in enumerate(TABLE_2.methods[:-1]):
        rows = with_score(rows, method, recall_5=0.05 + 0.001 * place, recall_10=0.05 + 0.001 * place)
    rows = with_score(rows, "nova-bert", recall_5=0.08, recall_10=0.125)
    found = {gain.metric: gain for gain in gains(rows, {})}
    assert found["recall@5"].theirs == found["recall@10"].theirs == Side("nova-bert")
    assert found["recall@5"].relative == pytest.approx(0.125)
    assert found["recall@10"].relative == pytest.approx(-0.2)
    made = made_of(rows, {})
    assert entries(made, "R@5")[-1].mean == pytest.approx(12.5)
    assert " +12.50 % |" in markdown(made) and " -20.00 % |" in markdown(made)
    assert r"$+$12.50 \%" in latex(made) and r"$-$20.00 \%" in latex(made)


def test_best_and_second(make_baselines):
    rows, _ = make_baselines()
    for method in TABLE_2.methods:
        rows = with_score(rows, method, ndcg_5=0.01)
    for method, value in (("bert4rec", 0.02), ("tiger", 0.03), ("bbqrec", 0.020004), ("sasrec", 0.03)):
        rows = with_score(rows, method, ndcg_5=value)
    found = dict(zip(TABLE_2.methods, entries(made_of(rows, {}), "N@5"), strict=False))
    assert {m for m, entry in found.items() if entry.best} == {"tiger", "sasrec"}
    assert {m for m, entry in found.items() if entry.second} == {"bert4rec", "bbqrec"}, "what looks equal is equal"
    assert r"\underline{0.0200}" in latex(made_of(rows, {})) and "_0.0200_" in markdown(made_of(rows, {}))


def test_a_test_per_cell_on_the_users_of_the_seeds_that_both_have(make_baselines, set_status):
    rows, ranks = make_baselines(("toys", "sports"), seeds=3)
    rows = set_status(rows, "failed", "boom", dataset="toys", method="bbqrec", seed=2)
    del ranks["toys.letter.0"]
    compared = gains(rows, ranks)
    assert [(gain.dataset, gain.metric) for gain in compared[3:5]] == [("sports", "ndcg@10"), ("toys", "recall@5")]
    sports, toys = compared[3], next(gain for gain in compared[4:] if gain.theirs.method == "letter")
    assert (toys.seeds, sports.seeds) == ((1,), (0, 1, 2))
    ours, theirs = (
        np.mean([user_scores(ranks[f"sports.{m}.{seed}"], "ndcg@10") for seed in range(3)], axis=0)
        for m in ("bbqrec", sports.theirs.method)
    )
    expected = stats.ttest_rel(ours, theirs)
    assert (sports.test.t, sports.test.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert sports.test.difference == pytest.approx(ours.mean() - theirs.mean()) and sports.test.users == 2000
    ordered = sorted(compared, key=lambda gain: gain.test.p)
    assert ordered[0].p == pytest.approx(min(8 * ordered[0].test.p, 1)), "Holm over the eight cells"
    assert all(gain.p >= gain.test.p for gain in compared)


@pytest.mark.parametrize(("sign", "said"), [(1, "+"), (-1, "-")])
def test_a_clear_difference_is_marked_whichever_its_sign(make_baselines, sign, said):
    rows, ranks = make_baselines(methods=("tiger", "bbqrec"))
    ahead, behind = ("bbqrec", "tiger") if sign > 0 else ("tiger", "bbqrec")
    ranks[f"toys.{ahead}.0"] = np.where(np.arange(2000) % 5 == 0, 3, 11)
    ranks[f"toys.{behind}.0"] = np.where(np.arange(2000) % 20 == 0, 4, 11)
    for method in (ahead, behind):
        found = scores(ranks[f"toys.{method}.0"])
        rows = with_score(rows, method, **{metric.replace("@", "_"): value for metric, value in found.items()})
    made = made_of(rows, ranks)
    assert all(line.entries[-1].star for line in made.groups[0])
    assert f" {said}300.00 %* |" in markdown(made) or f" {said}75.00 %* |" in markdown(made)
    assert any(remark.startswith("*: p < 0.05 in a two-sided paired t-test") for remark in made.remarks)
    assert "over the table (4 cells)" in made.remarks[-2]


def test_noise_is_not_marked(make_baselines):
    rows, ranks = make_baselines(methods=("tiger", "bbqrec"))
    ranks["toys.bbqrec.0"] = ranks["toys.tiger.0"].copy()
    ranks["toys.bbqrec.0"][:2] = 1
    found = scores(ranks["toys.bbqrec.0"])
    rows = with_score(rows, "bbqrec", **{metric.replace("@", "_"): value for metric, value in found.items()})
    assert not any(line.entries[-1].star for line in made_of(rows, ranks).groups[0])


def test_seeds_that_only_one_has_may_not_turn_the_sign(make_baselines, set_status):
    """The means say that BBQRec is behind, the one seed that both have that it is ahead: no mark."""
    rows, ranks = make_baselines(methods=("tiger", "bbqrec"), seeds=2)
    rows = set_status(rows, "failed", "boom", method="tiger", seed=1)
    ranks["toys.bbqrec.0"] = np.full(2000, 3)
    rows = with_score(rows, "bbqrec", recall_5=0.01)
    gain = gains(rows, ranks)[0]
    assert gain.seeds == (0,) and gain.relative < 0 < gain.test.difference and gain.p < 0.01
    assert not gain.significant and not made_of(rows, ranks).groups[0][0].entries[-1].star


def test_without_ranks_nothing_is_marked_and_the_table_says_so(make_baselines):
    rows, ranks = make_baselines(("toys", "sports"))
    made = made_of(rows, {key: found for key, found in ranks.items() if key.startswith("sports")})
    assert "Significance is not marked for Toys: the ranks of the users are not at hand." in made.remarks
    assert all(gain.test is None for gain in gains(rows, {}))


def test_a_baseline_of_nothing_and_a_lone_method(make_baselines):
    rows, ranks = make_baselines(methods=("tiger", "bbqrec"))
    zero = with_score(rows, "tiger", recall_5=0.0, recall_10=0.0, ndcg_5=0.0, ndcg_10=0.0)
    assert [gain.relative for gain in gains(zero, {})] == [None] * 4
    assert entries(made_of(zero, {}), "R@5")[-1].mean is None
    assert gains(rows[rows["method"] == "bbqrec"], ranks) == []
    assert gains(rows[rows["method"] == "tiger"], ranks) == []


def test_two_numbers_of_users(make_baselines):
    rows, ranks = make_baselines(methods=("tiger", "bbqrec"))
    ranks["toys.tiger.0"] = ranks["toys.tiger.0"][:-1]
    with pytest.raises(InputError, match=r"bbqrec and tiger on toys rank 1999 and 2000 users"):
        gains(rows, ranks)


def test_the_frame_has_what_the_mark_was_made_of(make_baselines):
    rows, ranks = make_baselines(seeds=2)
    frame = frame_of(gains(rows, ranks))
    assert list(frame["metric"]) == ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    assert frame["seeds"].unique().tolist() == ["0 1"] and (frame["users"] == 2000).all()
    assert (frame["p_holm"] >= frame["p"]).all() and (frame["difference"] * frame["t"] > 0).all()
    assert frame_of([]).empty and list(frame_of([]).columns) == list(frame.columns)
