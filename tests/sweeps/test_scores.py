"""What a store knows of a run's validation scores, wherever they are."""

import json

import pytest

from sweeps.scores import Curve, known_curve, note_curve

KEY = "0123456789abcdef"


def lines(*scores: float) -> list[dict]:
    return [{"loss": 9.0, "valid/ndcg@10": score, "valid/ndcg@5": 0.9} for score in scores]


@pytest.fixture
def publish(store, tmp_path):
    """Publishes a run of these scores."""

    def put(kind: str, *scores: float) -> None:
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(*scores)))
        store.publish(kind, KEY, folder, "a")

    return put


@pytest.fixture
def checkpoint(store):
    """Saves a checkpoint of a trial with these scores."""

    def put(*scores: float) -> None:
        log = json.dumps({"metrics": lines(*scores)}).encode()
        store.save_progress("trial", KEY, "a", len(scores), {"log.json": log})

    return put


def test_of_a_run_that_nobody_began_nothing_is_known(store):
    assert known_curve(store, KEY) == Curve(scores=(), ended=False, error=None)


@pytest.mark.parametrize("kind", ["trial", "recommender"])
def test_a_published_run_is_known_to_its_end(store, publish, checkpoint, kind):
    checkpoint(0.1)
    publish(kind, 0.1, 0.3, 0.2)
    assert known_curve(store, KEY) == Curve(scores=(0.1, 0.3, 0.2), ended=True)


def test_a_checkpoint_says_how_far_a_trial_came(store, checkpoint):
    checkpoint(0.1, 0.3)
    assert known_curve(store, KEY) == Curve(scores=(0.1, 0.3))


def test_a_note_takes_the_place_of_the_checkpoints_until_a_trial_came_further(store, checkpoint):
    checkpoint(0.1, 0.3)
    note_curve(store, KEY, Curve(scores=(0.1, 0.3)))
    assert store.load_progress("trial", KEY) is None
    assert known_curve(store, KEY) == Curve(scores=(0.1, 0.3))
    checkpoint(0.1)
    assert known_curve(store, KEY) == Curve(scores=(0.1, 0.3))
    checkpoint(0.1, 0.3, 0.4)
    assert known_curve(store, KEY) == Curve(scores=(0.1, 0.3, 0.4))


def test_a_run_that_diverged_has_ended(store):
    note_curve(store, KEY, Curve(scores=(0.1,), ended=True, error="loss is nan"))
    assert known_curve(store, KEY) == Curve(scores=(0.1,), ended=True, error="loss is nan")


def test_a_damaged_run_is_as_good_as_none(store, publish, caplog):
    publish("trial", 0.1, 0.2)
    (store.get("trial", KEY) / "metrics.jsonl").write_text("{}")
    assert known_curve(store, KEY) == Curve()
    assert "damaged" in caplog.text and not store.has("trial", KEY)
