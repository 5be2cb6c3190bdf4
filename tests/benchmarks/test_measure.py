"""The arithmetic of the comparisons, and the line that a peer is asked through; nothing here measures a speed."""

import sys

import numpy as np
import pytest

from benchmarks import peer, scaling
from benchmarks.measure import Sample, alternate, row


def test_contenders_take_turns_and_the_first_round_does_not_count():
    order = []

    def contender(name, seconds):
        def turn():
            order.append(name)
            return Sample(work=6.0, seconds=seconds.pop(0))

        return turn

    rates = alternate({"a": contender("a", [9.0, 1.0, 2.0]), "b": contender("b", [9.0, 3.0, 6.0])}, 2)
    assert order == ["a", "b"] * 3
    assert rates == {"a": [6.0, 3.0], "b": [2.0, 1.0]}


def test_a_ratio_is_of_medians_with_the_extremes_of_the_rounds():
    rates = {"ours": [10.0, 30.0, 20.0], "theirs": [5.0, 10.0, 4.0]}
    faster = row("step", "items", rates, "ours", "theirs", at_least=4.0)
    assert (faster.ratio, faster.low, faster.high, faster.rounds) == (4.0, 2.0, 5.0, 3)
    assert faster.met and faster.target == ">= 4"
    costs = row("step", "items", rates, "theirs", "ours", at_most=3.9)
    assert (costs.ratio, costs.low, costs.high) == (4.0, 2.0, 5.0)
    assert not costs.met and costs.target == "<= 3.9"
    with pytest.raises(ValueError, match="give one of"):
        row("step", "items", rates, "ours", "theirs")


def test_scaling_is_the_speed_up_against_one_node_and_what_nodes_were_idle():
    spans = {1: {"runs": 12, "seconds": 80.0, "busy": 72.0}, 3: {"runs": 12, "seconds": 32.0, "busy": 72.0}}
    alone, faster, idle = scaling.compared({"sleeping": spans})
    assert (faster.ratio, faster.ours, faster.against, faster.met) == (2.5, "3 nodes", "1 node", False)
    assert (alone.value, idle.value) == (pytest.approx(10.0), pytest.approx(25.0))
    assert (alone.met, idle.met) == (True, False)


def test_a_peer_gets_arrays_answers_questions_and_is_ended(tmp_path, monkeypatch):
    (tmp_path / "echo.py").write_text(
        "import json, sys, numpy\n"
        "given = numpy.load(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    times = json.loads(line)['times']\n"
        "    if times < 0: sys.exit(3)\n"
        "    print(json.dumps({'work': float(given['x'].sum()) * times, 'seconds': 2.0}), flush=True)\n"
    )
    monkeypatch.setattr(peer, "WORKERS", tmp_path)
    monkeypatch.setattr(peer, "environment", lambda requirements: sys.executable)
    with peer.Peer("echo", (), {"x": np.array([1.0, 2.5])}) as echo:
        assert echo.turn(times=2)() == Sample(work=7.0, seconds=2.0)
        process = echo._process
        with pytest.raises(RuntimeError, match="worker echo ended with status 3"):
            echo.ask(times=-1)
    assert process.returncode == 3
