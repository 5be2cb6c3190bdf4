"""Rates of contenders that take turns, and what their ratio is: never a time by itself."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a contender did in one turn, in the row's unit, and the CPU seconds of all its threads that it took."""

    work: float
    seconds: float


Contender = Callable[[], Sample]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: two rates per CPU second, and the ratio of the medians with the extremes over the rounds."""

    name: str
    unit: str
    ours: str
    ours_per_second: float
    against: str
    against_per_second: float
    ratio: float
    low: float
    high: float
    rounds: int
    target: str
    met: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A line of the table for a quantity that is compared with a target alone."""

    name: str
    unit: str
    value: float
    at_most: float
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.at_most


def timed(work: Callable[[], float]) -> Contender:
    """A contender in this process; `work` returns how much it did."""

    def turn() -> Sample:
        begun = time.process_time()
        done = work()
        return Sample(work=done, seconds=time.process_time() - begun)

    return turn


def alternate(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Work per CPU second of each contender in each round, in turns, after one round that warms up and does not count.

    Taking turns gives a noisy neighbour on the machine to all of them alike.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, turn in contenders.items():
            sample = turn()
            if number > 0:
                rates[name].append(sample.work / sample.seconds)
    return rates


def row(
    name: str,
    unit: str,
    rates: Mapping[str, list[float]],
    ours: str,
    against: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
) -> Row:
    """Compares two contenders. With `at_least` the ratio is ours / theirs (how much faster we are), with `at_most`
    theirs / ours (how much more ours costs than the plain one)."""
    if (at_least is None) == (at_most is None):
        raise ValueError(f"{name}: give one of at_least={at_least} and at_most={at_most}")
    mine, theirs = (statistics.median(rates[who]) for who in (ours, against))
    faster = [a / b for a, b in zip(rates[ours], rates[against], strict=True)]
    ratios = faster if at_most is None else [1 / ratio for ratio in faster]
    ratio = mine / theirs if at_most is None else theirs / mine
    return Row(
        name=name,
        unit=unit,
        ours=ours,
        ours_per_second=mine,
        against=against,
        against_per_second=theirs,
        ratio=ratio,
        low=min(ratios),
        high=max(ratios),
        rounds=len(ratios),
        target=f">= {at_least:g}" if at_most is None else f"<= {at_most:g}",
        met=ratio >= at_least if at_least is not None else ratio <= at_most,  # type: ignore[operator]
        note=note,
    )
