"""Training and evaluation rows against loops over the users."""

from collections import Counter

import numpy as np
import pytest
from held_out import SHARED_ITEMS, held_out_dataset, histories_of

from bbqrec.examples import Examples, evaluation_examples, popularity, training_examples
from bbqrec.schema import PAD

LONGEST = 4


def pairs(examples: Examples) -> Counter:
    """(visible history, target) of every counted target."""
    found: Counter = Counter()
    for history, targets, visible in zip(examples.history, examples.target, examples.visible, strict=True):
        real = [item for item in history.tolist() if item != PAD]
        assert history[: len(real)].tolist() == real  # padding stands on the right
        for target, seen in zip(targets.tolist(), visible.tolist(), strict=True):
            if seen:
                assert seen <= len(real)
                found[tuple(real[:seen]), target] += 1
    return found


def test_prefixes_are_all_training_prefixes():
    dataset = held_out_dataset()
    expected = Counter(
        (tuple(history[max(0, t - 4) : t]), history[t])
        for history in histories_of(dataset)
        for t in range(1, len(history) - 2)
    )
    found = training_examples(dataset, "prefix", LONGEST)
    assert pairs(found) == expected and found.history.shape == (sum(expected.values()), 4)


@pytest.mark.parametrize("longest", [4, 5, 20])
def test_packed_rows_hold_the_same_targets_once(longest):
    dataset = held_out_dataset()
    prefix = pairs(training_examples(dataset, "prefix", longest))
    packed = pairs(training_examples(dataset, "packed", longest))
    assert packed.total() == prefix.total()
    assert Counter(target for _, target in packed.elements()) == Counter(target for _, target in prefix.elements())
    if longest == 20:  # nothing is cut: the same pairs
        assert packed == prefix
    for history, target in packed:
        assert any(full[1] == target and full[0][-len(history) :] == history for full in prefix)


def test_an_item_s_own_position_is_never_its_history():
    examples = training_examples(held_out_dataset(), "packed", LONGEST)
    for history, targets, visible in zip(examples.history, examples.target, examples.visible, strict=True):
        for place, (target, seen) in enumerate(zip(targets, visible, strict=True)):
            assert seen in (0, place + 1)
            if seen and place + 1 < len(history) and history[place + 1] != PAD:
                assert history[place + 1] == target  # the next item is the target, and it is not visible


@pytest.mark.parametrize("history", ["prefix", "packed"])
def test_held_out_items_are_in_no_training_tensor(history):
    examples = training_examples(held_out_dataset(), history, LONGEST)
    for array in (examples.history, examples.target):
        assert array.max() < SHARED_ITEMS
    assert popularity(held_out_dataset())[SHARED_ITEMS:].sum() == 0


@pytest.mark.parametrize(("split", "back"), [("valid", 2), ("test", 1)])
def test_evaluation_rows_are_the_users_in_their_order(split, back):
    dataset = held_out_dataset()
    examples = evaluation_examples(dataset, split, 4)
    for history, row, target, visible in zip(
        histories_of(dataset), examples.history, examples.target, examples.visible, strict=True
    ):
        expected = history[:-back][-4:]
        assert row.tolist() == expected + [PAD] * (4 - len(expected))
        assert target.tolist() == [history[-back]] and visible.tolist() == [len(expected)]


def test_popularity_counts_training_interactions():
    dataset = held_out_dataset()
    expected = Counter(item for history in histories_of(dataset) for item in history[:-2])
    assert popularity(dataset).tolist() == [expected[item] for item in range(dataset.num_items)]


@pytest.mark.parametrize("history", ["prefix", "packed"])
def test_a_batch_is_cut_to_its_longest_history_and_loses_no_target(history):
    examples = training_examples(held_out_dataset(), history, 9)
    lengths = examples.lengths
    assert lengths.tolist() == [int((row != PAD).sum()) for row in examples.history]
    for rows in (np.flatnonzero(lengths <= 2), np.flatnonzero(lengths <= 5)[::-1].copy()):
        batch = examples.batch(rows)
        assert batch.history.shape == (len(rows), lengths[rows].max())
        cut = Examples(history=batch.history.numpy(), target=batch.target.numpy(), visible=batch.visible.numpy())
        whole = Examples(history=examples.history[rows], target=examples.target[rows], visible=examples.visible[rows])
        assert pairs(cut) == pairs(whole)
