"""One method against another: what is compared, on which seeds, and the stars of Tables 3 and 4."""

import numpy as np
import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.ablations import ablation_table, losses
from analysis.contrasts import COLUMNS, Side, contrasts, corrected, frame
from analysis.rows import METRICS, SPLITS
from analysis.tables import TABLE_3, TABLE_4, latex, markdown
from bbqrec.metrics import scores, user_scores

SHARES = {"bbqrec": 0.2, "bbqrec/no-mim": 0.1, "bbqrec/no-rec": 0.2, "bbqrec/no-u": 0.3, "bbqrec/s": 0.2}


def with_ranks(rows, users: int = 3000):
    """Ranks by which w/o MIM is behind, w/o U ahead and the rest even; and the rows with their scores."""
    rows, ranks = rows.copy(), {}
    for index, row in rows.iterrows():
        generator = np.random.default_rng([row["seed"], len(row["method"])])
        found = generator.random(users) < SHARES.get(row["method"], 0.2)
        if row["run_key"] not in ranks:
            ranks[row["run_key"]] = np.where(found, generator.integers(1, 11, users), 11)
        values = scores(ranks[row["run_key"]])
        for split in SPLITS:
            rows.loc[index, [f"{split}/{metric}" for metric in METRICS]] = [values[metric] for metric in METRICS]
    return rows, ranks


def test_a_contrast_is_of_the_common_seeds_and_signed(make_rows, set_status):
    rows, ranks = with_ranks(make_rows(seeds=3))
    rows = set_status(rows, "failed", "boom", method="bbqrec/no-mim", seed=2)
    found = contrasts(rows, ranks, [("toys", Side("bbqrec"), Side("bbqrec/no-mim"))])
    assert [c.metric for c in found] == list(METRICS)
    ndcg = found[-1]
    ours, theirs = (
        np.mean([user_scores(ranks[f"toys.{name}.{seed}"], "ndcg@10") for seed in (0, 1)], axis=0)
        for name in ("bbqrec", "bbqrec.no-mim")
    )
    assert ndcg.seeds == (0, 1) and ndcg.test.difference == pytest.approx((ours - theirs).mean())
    low, high = ndcg.interval
    assert 0 < low < ndcg.test.difference < high and ndcg.effect > 0 and ndcg.wilcoxon < 0.01
    assert 0 < ndcg.detectable < ndcg.test.difference
    assert not ndcg.significant, "nothing is before it is corrected"
    assert corrected(found)[-1].significant


def test_settings_tell_rows_of_one_method_apart(make_rows):
    rows, ranks = with_ranks(make_rows(methods=("bbqrec", "bbqrec/no-mim")))
    rows = rows.assign(method="bbqrec", setting=["quantizer.levels=3", "quantizer.levels=1"])
    found = contrasts(rows, ranks, [("toys", *(Side("bbqrec", f"quantizer.levels={n}") for n in (3, 1)))])
    assert found[0].means[0] > found[0].means[1] and found[0].test is not None
    assert contrasts(rows, ranks, [("toys", Side("bbqrec"), Side("bbqrec", "quantizer.levels=1"))]) == []


def test_without_ranks_means_remain(make_rows):
    (one, *_) = contrasts(make_rows(), {}, [("toys", Side("bbqrec"), Side("bbqrec/s"))])
    assert one.test is None and one.relative > 0 and not one.significant
    line = frame([one]).iloc[0]
    assert list(frame([one]).columns) == list(COLUMNS) == list(frame([]).columns)
    assert line["relative"] == pytest.approx(one.relative) and line["p_holm"] is None


def test_stars_say_that_a_variant_differs_whichever_way(make_rows, tmp_path):
    rows, ranks = with_ranks(make_rows(("toys", "synthetic"), seeds=2))
    made = ablation_table(rows, TABLE_3, losses(rows, ranks, TABLE_3))
    for group in made.groups:
        assert [[entry.star for entry in line.entries] for line in group] == [[True, False, True, False]] * 4
    assert "Holm-corrected over the table (24 cells)" in made.remarks[-2]
    sizes = [c.detectable for c in losses(rows, ranks, TABLE_3) if (c.dataset, c.metric) == ("toys", "ndcg@10")]
    assert f"Toys {min(sizes):.4f} to {max(sizes):.4f}," in made.remarks[-1] and 0.003 < min(sizes) < max(sizes) < 0.02
    check_golden("starred_table3.md", markdown(made))
    set_by_latex(tmp_path, DOCUMENTS[0], [latex(made)])
    tested = frame(losses(rows, ranks, TABLE_3))
    assert len(tested) == 24 and set(tested["against"]) == {"bbqrec/no-mim", "bbqrec/no-rec", "bbqrec/no-u"}


def test_a_run_is_not_tested_against_itself_and_missing_ranks_are_said(make_rows):
    rows, ranks = with_ranks(make_rows(("beauty",)))
    shared = rows["method"] == "bbqrec/s"
    rows.loc[shared, "run_key"] = rows.loc[rows["method"] == "bbqrec", "run_key"].item()
    assert {c.theirs.method for c in losses(rows, ranks, TABLE_4)} == {"bbqrec/e"}
    made = ablation_table(rows, TABLE_4, losses(rows, {}, TABLE_4))
    assert made.remarks[-1].startswith("Significance is not marked for Beauty")
    assert not any(entry.star for line in made.groups[0] for entry in line.entries)
