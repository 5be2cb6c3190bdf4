"""The planted truth is there, is hidden where it should be, and is worth knowing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bbqrec.data import evaluation_part, load_dataset, statistics, training_part
from bbqrec.datasets.synthetic import (
    FACTORS,
    VERSION,
    Synthetic,
    SyntheticConfig,
    is_generated,
    prepare_synthetic,
    synthesize,
)
from bbqrec.errors import InputError
from bbqrec.metrics import scores
from bbqrec.schema import UNRANKED

CONFIG = SyntheticConfig()


@pytest.fixture(scope="module")
def made() -> Synthetic:
    return synthesize(CONFIG)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    prepare_synthetic(CONFIG, folder, "synthetic")
    return load_dataset(folder)


def equal(one: Synthetic, other: Synthetic) -> bool:
    return np.array_equal(one.items, other.items) and all(
        np.array_equal(one.features[m].values, other.features[m].values)
        and np.array_equal(one.features[m].present, other.features[m].present)
        for m in one.features
    )


def test_equal_configs_give_equal_data_and_every_seed_its_own(made):
    assert equal(made, synthesize(CONFIG))
    assert not equal(made, synthesize(dataclasses.replace(CONFIG, seed=1)))


def test_parts_draw_from_streams_of_their_own(made):
    longer = synthesize(dataclasses.replace(CONFIG, mean_length=7.0))
    assert np.array_equal(made.features["image"].values, longer.features["image"].values)
    louder = synthesize(dataclasses.replace(CONFIG, style_strength=9.0))
    assert np.array_equal(made.items, louder.items)


def test_counts(dataset):
    counts = statistics(dataset)
    assert (counts["users"], counts["items"], counts["texts"], counts["images"]) == (2000, 600, 570, 510)
    lengths = np.diff(dataset.offsets)
    assert lengths.min() == 5 and lengths.max() <= 30 and 8.7 < lengths.mean() < 9.3
    assert set(dataset.features) == {"text", "image"}
    assert (dataset.features["text"].present != dataset.features["image"].present).any()


def test_no_item_twice_in_a_user_even_where_an_interest_is_used_up():
    tight = SyntheticConfig(users=50, items=73, values=(2, 2, 2, 3), mean_length=25.0, max_length=36, follow=1.0)
    made = synthesize(tight)
    for start, end in zip(made.offsets[:-1], made.offsets[1:], strict=True):
        assert len(set(made.items[start:end].tolist())) == end - start
    assert made.items.min() >= 0


def test_popularity_is_skewed(made):
    counts = np.sort(np.bincount(made.items, minlength=600))[::-1]
    assert counts[:60].sum() > 0.24 * counts.sum()
    flat = synthesize(dataclasses.replace(CONFIG, zipf=0.0))
    assert np.sort(np.bincount(flat.items, minlength=600))[::-1][:60].sum() < 0.17 * len(flat.items)


def test_the_truth_is_kept_beside_the_data_set_and_not_in_its_fingerprint(tmp_path, made):
    prepared = prepare_synthetic(CONFIG, tmp_path / "d", "d")
    table = pd.read_parquet(tmp_path / "d" / "truth.parquet")
    assert table["interest"].tolist() == made.truth.interests.tolist()
    assert table[[f"factor_{f}" for f in FACTORS]].to_numpy().tolist() == made.truth.factors.tolist()
    (tmp_path / "d" / "truth.parquet").unlink()
    assert load_dataset(tmp_path / "d").fingerprint == prepared.dataset.fingerprint
    assert len(set(map(tuple, made.truth.factors))) == CONFIG.interests == len(set(made.truth.interests))


def test_data_of_another_generator_has_another_version(tmp_path):
    """Other bytes than here: raise VERSION and put the new fingerprint here, else studies go on with the old data."""
    small = SyntheticConfig(users=50, items=73, values=(2, 2, 2, 3), max_length=12)
    made = prepare_synthetic(small, tmp_path / "d", "d").dataset
    assert (VERSION, made.fingerprint[:12]) == (1, "c4fe63a1a461")
    assert is_generated(tmp_path / "d", small)
    assert not is_generated(tmp_path / "d", dataclasses.replace(small, zipf=0.7))
    assert not is_generated(tmp_path, small)


def test_threads_walk_as_planted():
    """One thread per user, no chance: text always moves on, image may, the others stay."""
    walk = {"stay": 1.0, "follow": 1.0, "moves": (0.0, 1.0, 0.5, 0.0), "mean_length": 5.0, "max_length": 6}
    made = synthesize(dataclasses.replace(CONFIG, **walk))
    ends = np.zeros(len(made.items), dtype=bool)
    ends[made.offsets[1:] - 1] = True
    before = made.truth.factors[made.items[:-1][~ends[:-1]]]
    after = made.truth.factors[made.items[1:][~ends[:-1]]]
    assert (before[:, [0, 3]] == after[:, [0, 3]]).all()
    assert (made.truth.transitions[1][before[:, 1], after[:, 1]] == 1).all()
    assert not (before[:, 1] == after[:, 1]).any() and 0.4 < (before[:, 2] == after[:, 2]).mean() < 0.6


def knowing(dataset, truth, factors: tuple[int, ...]) -> np.ndarray:
    """Scores (U, I) for the test item of someone who knows the rules and these factors of every item."""
    histories = evaluation_part(dataset, "test").histories
    total = np.zeros((dataset.num_users, dataset.num_items))
    for back, weight in ((1, CONFIG.stay), (2, 1 - CONFIG.stay)):
        last = histories.items[histories.offsets[1:] - back]
        likelihood = np.full(total.shape, weight)
        for f in factors:
            likelihood *= truth.transitions[f][truth.factors[last, f]][:, truth.factors[:, f]]
        total += likelihood
    return total * truth.popularity


def ndcg(dataset, points: np.ndarray) -> float:
    """NDCG@10 on the test items; what a user has had before is no candidate."""
    part = evaluation_part(dataset, "test")
    points = points.copy()
    points[np.repeat(np.arange(dataset.num_users), part.histories.lengths), part.histories.items] = -np.inf
    of_target = points[np.arange(len(points)), part.targets]
    ranks = 1 + (points > of_target[:, None]).sum(axis=1)
    return scores(np.minimum(ranks, UNRANKED))["ndcg@10"]


def popular(dataset) -> np.ndarray:
    counts = np.bincount(training_part(dataset).items, minlength=dataset.num_items).astype(float)
    return np.tile(counts, (dataset.num_users, 1))


def test_the_truth_predicts_the_next_item_far_better_than_popularity(dataset, made):
    assert ndcg(dataset, knowing(dataset, made.truth, (0, 1, 2, 3))) > 5 * ndcg(dataset, popular(dataset)) > 0.1


def test_every_factor_is_needed(dataset, made):
    whole = ndcg(dataset, knowing(dataset, made.truth, (0, 1, 2, 3)))
    for left_out in range(4):
        rest = tuple(f for f in range(4) if f != left_out)
        assert ndcg(dataset, knowing(dataset, made.truth, rest)) < 0.85 * whole, FACTORS[left_out]


def neighbours(values: np.ndarray) -> np.ndarray:
    """The five nearest other rows of each row."""
    distances = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :5]


def likeness(labels: np.ndarray, near: np.ndarray) -> float:
    return float((labels[near] == labels[:, None]).mean())


@pytest.mark.parametrize(("place", "modality", "own", "foreign"), [(0, "text", 1, 2), (1, "image", 2, 1)])
def test_features_show_style_first_their_factors_second_and_the_rest_never(made, place, modality, own, foreign):
    features, truth = made.features[modality], made.truth
    rows = np.flatnonzero(features.present & (truth.original < 0))
    near = neighbours(features.values[rows].astype(np.float64))
    style = likeness(truth.styles[rows, place], near)
    shown = [likeness(truth.factors[rows, f], near) for f in (0, own)]
    hidden = [likeness(truth.factors[rows, f], near) for f in (foreign, 3)]
    chance = [1 / CONFIG.values[f] for f in (0, own, foreign, 3)]
    assert style > 0.6 and style > max(shown)
    assert all(s > c + 0.1 for s, c in zip(shown, chance[:2], strict=True))
    assert all(abs(h - c) < 0.05 for h, c in zip(hidden, chance[2:], strict=True))
    behaviour = np.concatenate(
        [np.eye(n)[c] for n, c in zip(CONFIG.values, truth.factors[rows].T, strict=True)], axis=1
    )
    assert likeness(truth.interests[rows], neighbours(behaviour)) > 10 * likeness(truth.interests[rows], near)


def test_lookalikes_look_alike_and_behave_otherwise(made):
    copies = np.flatnonzero(made.truth.original >= 0)
    originals = made.truth.original[copies]
    assert len(copies) == 60 and not set(copies) & set(originals)
    assert (made.truth.interests[copies] == made.truth.interests[originals]).mean() < 0.1
    for features in made.features.values():
        both = features.present[copies] & features.present[originals]
        one, other = features.values[copies][both], features.values[originals][both]
        assert np.linalg.norm(one - other, axis=1).max() < 0.05 * np.linalg.norm(other, axis=1).min()


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": 0},
        {"seed": -1},
        {"follow": 1.2},
        {"lookalikes": -0.1},
        {"min_length": 2},
        {"mean_length": 40.0},
        {"items": 100},
        {"values": (4, 0, 3, 2)},
        {"max_length": 400},
    ],
)
def test_configs_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(CONFIG, **wrong)
