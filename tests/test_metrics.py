"""Recall and NDCG of one target per user, against loops and by their invariants."""

import math

import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

from bbqrec.metrics import ndcg, recall, scores
from bbqrec.schema import UNRANKED

ranks_lists = st.lists(st.one_of(st.integers(1, 25), st.just(UNRANKED)), min_size=1, max_size=40)


@given(ranks_lists, st.integers(1, 30))
def test_equal_to_the_loops(ranks, k):
    array = np.array(ranks, dtype=np.int32)
    assert recall(array, k) == pytest.approx(ref.recall(ranks, k))
    assert ndcg(array, k) == pytest.approx(ref.ndcg(ranks, k))


@given(ranks_lists, st.integers(1, 29))
def test_invariants(ranks, k):
    array = np.array(ranks, dtype=np.int32)
    assert 0 <= ndcg(array, k) <= recall(array, k) <= 1
    assert recall(array, k) <= recall(array, k + 1) and ndcg(array, k) <= ndcg(array, k + 1)
    # What a table cannot break with one target per user (NOTES, errata).
    more = recall(array, k + 1) - recall(array, k)
    assert ndcg(array, k + 1) - ndcg(array, k) == pytest.approx(more / math.log2(k + 2))


def test_by_hand():
    found = scores(np.array([1, 3, 10, 11, UNRANKED], dtype=np.int32))
    assert list(found) == ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    assert found["recall@5"] == pytest.approx(2 / 5) and found["recall@10"] == pytest.approx(3 / 5)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / 2) / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 5)


@given(ranks_lists)
def test_order_of_users_does_not_matter(ranks):
    forward, backward = (scores(np.array(r, dtype=np.int32)) for r in (ranks, ranks[::-1]))
    assert forward == pytest.approx(backward)


@pytest.mark.parametrize(("ranks", "message"), [([], "no ranks"), ([3, 0], "start at 1, got 0")])
def test_refuses_what_is_no_rank(ranks, message):
    with pytest.raises(ValueError, match=message):
        scores(np.array(ranks, dtype=np.int32))
