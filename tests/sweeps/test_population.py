"""The pure part of population-based training: first values, changed values, and what is told of a population."""

from random import Random

import pytest

from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from bbqrec.methods import METHODS, run_config
from bbqrec.tasks import ITEM_MODELS
from sweeps.population import Epoch, Population, PopulationBudget, explored, first_values
from sweeps.search_spaces import PERTURBABLE, TUNABLE, Choices, LogUniform, default, perturbable, space_for, space_of

SPACE = {"lr": LogUniform(1e-4, 1e-2), "dropout": Choices((0.1, 0.2, 0.4))}
START = {"lr": 1e-3, "dropout": 0.2}


@pytest.mark.parametrize("method", TUNABLE)
def test_what_is_perturbed_is_a_part_of_stage_2s_space(method):
    space = perturbable(space_for(method))
    assert {"recommender.learning_rate", "recommender.dropout"} <= set(space) <= set(space_for(method))
    assert set(space) <= set(PERTURBABLE) and all(path.startswith("recommender.") for path in space)


@pytest.mark.parametrize("method", [name for name in TUNABLE if METHODS[name].quantizer is None and name != "vq-rec"])
def test_what_is_perturbed_changes_no_shape(method, folder):
    dataset = load_dataset(folder)
    run = run_config(method, dataset, 0, "tiny")
    space = perturbable(space_of(method, run, {}))
    other = {path: d.values[-1] if isinstance(d, Choices) else d.high for path, d in space.items()}
    assert {path: default(run, path) for path in space} != other
    changed = run_config(method, dataset, 0, "tiny", None, {method: other})
    shapes = [
        {
            name: value.shape
            for name, value in ITEM_MODELS[type(r.recommender)](r.recommender, dataset).state_dict().items()
        }
        for r in (run, changed)
    ]
    assert shapes[0] == shapes[1]


def test_the_first_member_has_the_default_and_the_others_draw_by_the_seed():
    drawn = first_values(SPACE, START, 30, seed=3)
    assert drawn[0] == START and len(drawn) == 30
    assert all(SPACE[path].holds(value) for values in drawn for path, value in values.items())
    assert {values["dropout"] for values in drawn} == {0.1, 0.2, 0.4} and len({v["lr"] for v in drawn}) > 20
    assert sum(values["lr"] < 1e-3 for values in drawn) in range(8, 23), "as likely by the order of magnitude"
    assert first_values(SPACE, START, 30, seed=3) == drawn != first_values(SPACE, START, 30, seed=4)
    assert first_values(SPACE, START, 7, seed=3) == drawn[:7]


def test_values_move_a_step_or_are_drawn_anew_and_stay_in_the_space():
    draw = Random(5)
    moved = [explored(START, SPACE, draw) for _ in range(200)]
    steps = [values["lr"] for values in moved]
    assert steps.count(8e-4) > 50 and steps.count(1.2e-3) > 50 and len(set(steps)) > 20
    assert {values["dropout"] for values in moved} == {0.1, 0.2, 0.4}
    values = {"lr": 9.9e-3, "dropout": 0.4}
    for _ in range(200):
        values = explored(values, SPACE, draw)
        assert all(SPACE[path].holds(value) for path, value in values.items())
    assert SPACE["lr"].holds(explored({"lr": 50.0, "dropout": 0.4}, SPACE, draw)["lr"]), "from outside, it is drawn"


def test_nothing_moves_but_what_is_in_the_space():
    assert explored({"lr": 1e-3, "other": 7.0}, {"lr": SPACE["lr"]}, Random(0)).keys() == {"lr"}


def told() -> Population:
    """Three members, four epochs: 2 takes over 0 after 2 epochs, then 0 takes over 2 after 3."""
    population = Population(budget=PopulationBudget(population=3, epochs=4, interval=1, seed=0))
    for member, scores in enumerate([(0.1, 0.3, 0.2, 0.5), (0.1, 0.2, 0.2, 0.2), (None, None, 0.4, 0.5)]):
        for number, score in enumerate(scores, start=1):
            donor = {(2, 3): 0, (0, 4): 2}.get((member, number))
            population.add(member, number, Epoch(score=score, values={"lr": member + number / 10}, weights_of=donor))
    return population


def test_the_schedule_follows_the_weights_not_the_member():
    population = told()
    assert population.complete and population.best == (0, 4), "the lower number of equal ones"
    schedule = population.schedule(0, 4)
    assert [line["member"] for line in schedule] == [0, 0, 2, 0]
    assert [line["score"] for line in schedule] == [0.1, 0.3, 0.4, 0.5]
    assert [line["values"]["lr"] for line in schedule] == [0.1, 0.2, 2.3, 0.4]


def test_every_exploit_is_told_with_the_values_before_and_after():
    assert told().exploits() == [
        {"after_epoch": 2, "member": 2, "weights_of": 0, "before": {"lr": 2.2}, "values": {"lr": 2.3}},
        {"after_epoch": 3, "member": 0, "weights_of": 2, "before": {"lr": 0.3}, "values": {"lr": 0.4}},
    ]
    assert told().curves()[2]["scores"] == [None, None, 0.4, 0.5]


def test_a_population_is_complete_with_every_epoch_of_every_member():
    population = told()
    del population.epochs[1][4]
    assert not population.complete
    empty = Population(budget=population.budget)
    assert empty.best is None and not empty.complete
    empty.add(0, 1, Epoch(score=None, values={}))
    assert empty.best is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": 1}, "--population 1"),
        ({"epochs": 1}, "--epochs 1"),
        ({"interval": 0}, "--interval 0"),
        ({"interval": 4}, "--interval 4 leaves nothing"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_a_budget_that_allows_no_exploit_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        PopulationBudget(**{"population": 2, "epochs": 4, "interval": 3, "seed": 0, **changes})
