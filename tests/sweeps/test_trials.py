"""What is tried next and what is stopped: reproducible, in the space, and ASHA's rule against a plain loop."""

import numpy as np
import pytest

from bbqrec.errors import InputError
from sweeps.search_spaces import Choices, LogUniform
from sweeps.trials import MEDIAN_OF, STARTUP, Budget, Trial, chosen, stopped_at, suggestion

SPACE = {
    "recommender.learning_rate": LogUniform(1e-4, 1e-2),
    "recommender.dropout": Choices((0.1, 0.2, 0.3, 0.4)),
    "recommender.d_model": Choices((32, 64)),
}


def told(number: int, scores=(0.1,), end="finished", **values) -> Trial:
    fields = {"learning_rate": 1e-3, "dropout": 0.2, "d_model": 64, **values}
    overrides = {f"recommender.{name}": value for name, value in fields.items()}
    return Trial(number=number, overrides=overrides, key=f"key{number}", scores=scores, end=end)


def searched(trials: int, seed: int) -> list[Trial]:
    """A search in which the logarithm of the learning rate alone decides, best at the lower end."""
    found: list[Trial] = []
    for number in range(trials):
        values = suggestion(SPACE, found, number, seed)
        score = -float(np.log10(values["recommender.learning_rate"]))
        found.append(Trial(number=number, overrides=values, key=str(number), scores=(score,), end="finished"))
    return found


def test_a_suggestion_follows_from_the_seed_the_number_and_the_trials_before():
    before = searched(STARTUP + 3, seed=5)
    assert suggestion(SPACE, before, 9, 5) == suggestion(SPACE, before, 9, 5)
    better = [*before[:-1], told(7, (9.0,))]
    others = [suggestion(SPACE, *given) for given in ((before, 10, 5), (before, 9, 6), (better, 9, 5))]
    rates = {values["recommender.learning_rate"] for values in (*others, suggestion(SPACE, before, 9, 5))}
    assert len(rates) == 4


def test_suggestions_are_in_the_space_and_can_be_read():
    for trial in searched(20, seed=1):
        assert trial.overrides.keys() == SPACE.keys()
        rate = trial.overrides["recommender.learning_rate"]
        assert 1e-4 <= rate <= 1e-2 and rate == float(f"{rate:.3g}")
        assert trial.overrides["recommender.dropout"] in (0.1, 0.2, 0.3, 0.4)
        assert type(trial.overrides["recommender.d_model"]) is int
    edge = {"recommender.learning_rate": LogUniform(0.0012345, 0.0012346)}
    assert 0.0012345 <= suggestion(edge, [], 1, 0)["recommender.learning_rate"] <= 0.0012346


def test_what_was_told_draws_the_search():
    """Chance alone would have a mean of -log10 of 3."""
    late = [np.mean([trial.score for trial in searched(25, seed)[15:]]) for seed in range(4)]
    assert min(late) > 3.3, late


def test_stopped_and_diverged_trials_count_as_bad_ones():
    """The same scores: once as those of finished trials, once as those of trials that were stopped early."""
    rates = np.geomspace(1e-4, 1e-2, 12).tolist()
    ends = {"finished": [], "stopped": [], "diverged": []}
    for end, found in ends.items():
        trials = [
            told(n, (1.0,), end if rate < 1e-3 else "finished", learning_rate=rate) for n, rate in enumerate(rates)
        ]
        found += [suggestion(SPACE, trials, 12, seed)["recommender.learning_rate"] for seed in range(12)]
    low = {end: sum(rate < 1e-3 for rate in found) for end, found in ends.items()}
    assert low["stopped"] < low["finished"] and low["diverged"] < low["finished"], low


def slow_rule(before, scores, epochs, grace, factor):
    """ASHA by hand: at each rung the best so far must reach the (1 - 1 / factor) quantile of those before."""
    rung = grace
    while rung < epochs:
        here = [max(curve[:rung]) for curve in before if len(curve) >= rung]
        if len(scores) >= rung and here and max(scores[:rung]) < np.quantile(here, 1 - 1 / factor):
            return rung
        rung *= factor
    return None


def test_asha_equals_a_plain_loop():
    generator = np.random.default_rng(3)
    stops = []
    for case in range(60):
        epochs, grace, factor = int(generator.integers(3, 14)), int(generator.integers(1, 3)), 2 + case % 2
        budget = Budget(epochs=epochs, grace=grace, factor=factor)
        before = []
        for _ in range(int(generator.integers(0, 7))):
            before.append(tuple(generator.random(int(generator.integers(1, epochs + 1))).tolist()))
        scores = tuple(generator.random(epochs).tolist())
        stops.append(stopped_at(before, scores, budget))
        assert stops[-1] == slow_rule(before, scores, epochs, grace, factor), (case, before, scores)
    assert None in stops and len(set(stops)) > 3


def slow_median(before, scores, epochs, grace):
    """By hand: from `grace` on the best so far must reach the median of the means that the others had by then."""
    for epoch in range(grace, epochs):
        means = [np.mean(curve[grace - 1 : epoch]) for curve in before if len(curve) >= epoch]
        if len(scores) >= epoch and len(means) >= MEDIAN_OF and max(scores[:epoch]) < np.median(means):
            return epoch
    return None


def test_the_median_rule_equals_a_plain_loop():
    generator = np.random.default_rng(4)
    stops = []
    for case in range(60):
        epochs, grace = int(generator.integers(3, 14)), int(generator.integers(1, 4))
        lengths = generator.integers(1, epochs + 1, int(generator.integers(0, 9)))
        before = [tuple(generator.random(int(length)).tolist()) for length in lengths]
        scores = tuple((0.6 * generator.random(epochs)).tolist())
        stops.append(stopped_at(before, scores, Budget(epochs=epochs, grace=grace, stop="median")))
        assert stops[-1] == slow_median(before, scores, epochs, grace), (case, before, scores)
    assert None in stops and len(set(stops)) > 3
    assert stopped_at([(0.9, 0.9)] * 9, (0.1, 0.1), Budget(epochs=2, grace=1, stop="none")) is None


def test_the_first_trial_is_never_stopped_nor_any_at_its_last_epoch():
    budget = Budget(epochs=4, grace=2, factor=2)
    assert stopped_at([], (0.1, 0.1, 0.1, 0.1), budget) is None
    assert stopped_at([(0.1, 0.2, 0.3, 0.9)], (0.1, 0.2, 0.3, 0.4), budget) is None
    assert stopped_at([(0.1, 0.2, 0.3, 0.9)], (0.1, 0.1), budget) == 2
    assert stopped_at([(0.1, 0.2, 0.3, 0.9)], (0.1,), budget) is None
    assert stopped_at([(0.3, 0.2)], (0.3, 0.1), budget) is None  # the best so far counts


def test_rungs_are_what_the_plan_says():
    assert Budget(epochs=10, grace=2, factor=3).rungs == (2, 6)
    assert Budget(epochs=6, grace=2, factor=3).rungs == (2,)
    assert Budget(epochs=2, grace=2).rungs == ()
    for epochs in range(2, 20):
        budget = Budget(epochs=epochs, grace=2, factor=2)
        rungs = [rung for rung in range(1, epochs + 1) if _compared_at(rung, budget)]
        assert rungs == list(budget.rungs), epochs


def _compared_at(epoch: int, budget: Budget) -> bool:
    """Whether a trial that falls behind at this epoch is stopped there, and not before."""
    better = tuple(0.1 if number < epoch else 0.9 for number in range(1, budget.epochs + 1))
    return stopped_at([better], tuple([0.1] * budget.epochs), budget) == epoch


def test_the_best_is_chosen_a_stopped_one_too_but_never_one_that_diverged():
    trials = [told(0, (0.2, 0.4, 0.3)), told(1, (0.5,), "stopped"), told(2, (0.9,), "diverged"), told(3, (0.5, 0.1))]
    assert [trial.score for trial in trials] == [0.4, 0.5, None, 0.5]
    assert chosen(trials).number == 1  # the first of equals
    assert chosen([told(0, (0.9,), "diverged"), told(1, (), "diverged")]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "--trials 0"),
        ({"epochs": 0}, "--epochs 0"),
        ({"grace": 0}, "--grace 0"),
        ({"grace": 4, "epochs": 3}, "--grace 4 is longer than a trial"),
        ({"factor": 1}, "--factor 1"),
        ({"parallel": 0}, "--parallel 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Budget(**options)
