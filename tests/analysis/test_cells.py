"""Exact means and deviations over seeds, the state of unfinished cells, and what is said about them."""

import pytest

from analysis.baselines import TABLE_2
from analysis.cells import ABSENT, compare
from analysis.labels import METHOD_LABELS, dataset_label, in_paper_order


def test_mean_and_sample_deviation_over_seeds(make_rows):
    cell = compare(make_rows(("toys",), seeds=3), ("bbqrec",)).cell("toys", "bbqrec")
    assert cell.seeds == (0, 1, 2)
    # The scores are level * (1, 1.02, 1.04): the sample deviation (n - 1) is 0.02 * level, the population's 0.0163.
    assert cell.mean["recall@10"] == pytest.approx(0.097 * 1.37 * 1.02)
    assert cell.sd["recall@10"] == pytest.approx(0.097 * 1.37 * 0.02)


def test_one_seed_has_no_deviation_and_the_split_is_the_one_asked_for(make_rows):
    rows = make_rows(("toys",))
    assert compare(rows, ("bbqrec",)).cell("toys", "bbqrec").sd == {}
    assert not compare(rows, ("bbqrec",)).repeated
    test, valid = (
        compare(rows, ("bbqrec",), split).cell("toys", "bbqrec").mean["ndcg@5"] for split in ("test", "valid")
    )
    assert valid == pytest.approx(1.1 * test)
    assert "validation split" in compare(rows, ("bbqrec",), "valid").conditions


def test_only_finished_seeds_count(make_rows, set_status):
    rows = set_status(make_rows(("toys",), seeds=3), "failed", "boom", method="bbqrec", seed=1)
    cell = compare(rows, ("bbqrec",)).cell("toys", "bbqrec")
    assert (cell.state, cell.seeds, cell.planned) == ("done", (0, 2), (0, 1, 2))
    assert cell.mean["recall@5"] == pytest.approx(0.097 * 1.02)
    assert cell.notes == ("failed (seed 1): boom", "seeds 0, 2 only, of 3")


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (("pending", "pending"), "pending"),
        (("pending", "running"), "running"),
        (("running", "failed"), "failed"),
        (("failed", "done"), "done"),
    ],
)
def test_the_state_of_a_cell(make_rows, set_status, states, shown):
    rows = make_rows(("toys",), seeds=2, methods=("bbqrec",))
    for seed, state in enumerate(states):
        rows = set_status(rows, state, seed=seed)
    cell = compare(rows, ("bbqrec",)).cell("toys", "bbqrec")
    assert cell.state == shown
    assert bool(cell.mean) == (shown == "done")


def test_what_is_not_in_the_study_is_absent(make_rows):
    comparison = compare(make_rows(("toys",), methods=("bbqrec",)), ("bbqrec", "bbqrec/s"))
    assert comparison.cell("toys", "bbqrec/s") == ABSENT
    assert compare(make_rows(("toys",), methods=("bbqrec",)), ("bbqrec/s",)).remarks == (
        "Nothing to show: the study has no cell of S.",
    )


def test_a_data_set_without_images(make_rows):
    comparison = compare(make_rows(("toys", "beauty"), seeds=2), ("bbqrec", "bbqrec/no-image", "bbqrec/no-text"))
    assert comparison.cell("beauty", "bbqrec/no-image").shared
    assert comparison.cell("beauty", "bbqrec/no-image").notes == ("on this data set the same run as BBQRec",)
    assert not comparison.cell("beauty", "bbqrec/no-text").shared
    assert not comparison.cell("toys", "bbqrec/no-image").shared
    assert not comparison.cell("beauty", "bbqrec").shared
    assert comparison.remarks == ("On Beauty every model does without the image signal.",)


def test_what_is_missing_is_named(partial_rows):
    comparison = compare(partial_rows, ("bbqrec/no-rec", "bbqrec/e", "bbqrec"))
    assert comparison.remarks[-1] == "Without a result so far: Synthetic: w/o Rec (seeds 0–2), E (seed 2)."


@pytest.mark.parametrize(
    ("seeds", "about", "said"),
    [
        (1, {}, "One seed (0). Profile small. Checkpoints selected by validation NDCG@10; scores on the test split"),
        (2, {}, "Mean ± standard deviation over seeds 0, 1. Profile small."),
        (4, {"profile": "paper", "overrides": "a=1"}, "over seeds 0–3. Profile paper with a=1."),
        (1, {"profile": None}, "One seed (0). Checkpoints"),
    ],
)
def test_the_conditions(make_rows, seeds, about, said):
    assert said in compare(make_rows(seeds=seeds, **about), ("bbqrec",)).conditions


def test_a_damaged_run_says_so(make_rows, set_status):
    rows = set_status(make_rows(), "pending", "row.json is damaged", method="bbqrec")
    assert compare(rows, ("bbqrec",)).cell("toys", "bbqrec").notes == ("pending: row.json is damaged",)


def test_data_sets_in_the_papers_order():
    assert in_paper_order(["mine", "toys", "Beauty", "toys", "clothing"]) == ["Beauty", "clothing", "toys", "mine"]
    assert [dataset_label(name) for name in ("toys", "MovieLens", "a-b")] == ["Toys", "MovieLens", "a-b"]


def test_labels_are_those_of_the_methods():
    methods = pytest.importorskip("bbqrec.methods").METHODS
    labels = {name: label.plain for name, label in METHOD_LABELS.items()}
    assert labels.items() >= {name: method.label for name, method in methods.items()}.items()
    assert set(labels) <= {*methods, *TABLE_2.methods}
