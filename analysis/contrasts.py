"""One method against another on the same users: difference, interval, tests. Tables and claims are read off these."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.bootstrap import intervals, kinds
from analysis.labels import METRIC_LABELS, dataset_label
from analysis.ranks import Ranks
from analysis.rows import METRICS
from analysis.significance import (
    LEVEL,
    POWER,
    PairedTest,
    detectable,
    effect_size,
    holm,
    mean_over_seeds,
    paired_t_test,
    wilcoxon,
)
from bbqrec.errors import InputError


@dataclass(frozen=True)
class Side:
    """A method, and the setting if the study varies more than methods."""

    method: str
    setting: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`ours` against `theirs` on one data set by one metric: means over each side's own seeds, `relative` to theirs.

    Tests compare the users, each with the mean over the `seeds` that both sides have; `compared` are the means of those
    alone. `test` is the t-test, `wilcoxon` a p-value, `interval` a bootstrap over users and seeds, `effect` Cohen's d,
    `detectable` what the t-test could have found. `p` is that of the t-test after Holm's correction over the contrasts
    that it was made with.
    """

    dataset: str
    metric: str
    ours: Side
    theirs: Side
    means: tuple[float, float]
    seeds: tuple[int, ...] = ()
    compared: tuple[float, float] | None = None
    test: PairedTest | None = None
    wilcoxon: float | None = None
    interval: tuple[float, float] | None = None
    effect: float | None = None
    detectable: float | None = None
    p: float | None = None

    @property
    def relative(self) -> float | None:
        """None where theirs is 0."""
        return self.means[0] / self.means[1] - 1 if self.means[1] > 0 else None

    @property
    def significant(self) -> bool:
        """Also of a loss. Not where single seeds decide: means over all seeds and over the common ones may disagree."""
        if self.p is None or self.test is None:
            return False
        return self.p < LEVEL and self.test.difference * (self.means[0] - self.means[1]) > 0


def contrasts(
    rows: pd.DataFrame,
    ranks: Ranks,
    pairs: Iterable[tuple[str, Side, Side]],
    metrics: tuple[str, ...] = METRICS,
    bootstrap: bool = True,
) -> list[Contrast]:
    """Of every (data set, ours, theirs) whose sides have a result, by every metric; tested where `ranks` has both.

    Without `bootstrap` there are no intervals, which take most of the time. Raises InputError for sides that rank
    different numbers of users.
    """
    found: list[Contrast] = []
    for dataset, ours, theirs in pairs:
        sides = [_done(rows, dataset, side) for side in (ours, theirs)]
        if all(len(side) for side in sides):
            plain = [
                Contrast(dataset=dataset, metric=metric, ours=ours, theirs=theirs, means=_means(sides, metric))
                for metric in metrics
            ]
            found += _compared(plain, sides, ranks, bootstrap)
    return found


def corrected(found: Sequence[Contrast]) -> list[Contrast]:
    """With `p` after Holm's correction over these."""
    adjusted = iter(holm([contrast.test.p for contrast in found if contrast.test is not None]))
    return [contrast if contrast.test is None else replace(contrast, p=next(adjusted)) for contrast in found]


def frame(found: Sequence[Contrast]) -> pd.DataFrame:
    """A row per contrast, for significance.csv."""
    lines = []
    for c in found:
        test = c.test
        low, high = c.interval or (None, None)
        ours, theirs = c.compared or c.means
        lines.append(
            {"dataset": c.dataset, "metric": c.metric, "method": c.ours.method, "setting": c.ours.setting}
            | {"against": c.theirs.method, "against_setting": c.theirs.setting}
            | {"mean": ours, "against_mean": theirs, "relative": ours / theirs - 1 if theirs > 0 else None}
            | {"seeds": " ".join(map(str, c.seeds)), "users": test and test.users}
            | {"difference": test and test.difference, "low": low, "high": high, "effect": c.effect}
            | {"detectable": c.detectable, "t": test and test.t, "p": test and test.p, "p_holm": c.p}
            | {"p_wilcoxon": c.wilcoxon}
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def remarks(found: Sequence[Contrast], says: str = "") -> list[str]:
    """What a table's star says, what could not be tested, and how small a difference could have been found."""
    tested = [c for c in found if c.test is not None]
    lines = []
    if tested:
        lines.append(
            f"*: {says}p < {LEVEL:g} in a two-sided paired t-test over the users, each with the mean over the seeds "
            f"that both methods have; Holm-corrected over the table ({len(tested)} cells)."
        )
    sizes: dict[str, list[float]] = {}
    for c in tested:
        if c.metric == METRICS[-1] and c.detectable is not None:
            sizes.setdefault(c.dataset, []).append(c.detectable)
    if sizes:
        ranges = {dataset: dict.fromkeys(f"{size:.4f}" for size in (min(s), max(s))) for dataset, s in sizes.items()}
        least = ", ".join(f"{dataset_label(dataset)} {' to '.join(found)}" for dataset, found in ranges.items())
        found_with = f"is found with probability {POWER:g}, before correction, from this size on"
        lines.append(f"A difference of {METRIC_LABELS[METRICS[-1]]} {found_with}: {least}.")
    left = {dataset_label(c.dataset): None for c in found if c.test is None}
    if left:
        lines.append(f"Significance is not marked for {', '.join(left)}: the ranks of the users are not at hand.")
    return lines


COLUMNS = (
    *("dataset", "metric", "method", "setting", "against", "against_setting", "mean", "against_mean", "relative"),
    *("seeds", "users", "difference", "low", "high", "effect", "detectable", "t", "p", "p_holm", "p_wilcoxon"),
)


def rows_of(rows: pd.DataFrame, dataset: str, side: Side) -> pd.DataFrame:
    """The cells of a side on a data set, done or not."""
    same = rows["setting"].isna() if side.setting is None else rows["setting"] == side.setting
    return rows[(rows["dataset"] == dataset) & (rows["method"] == side.method) & same]


def _done(rows: pd.DataFrame, dataset: str, side: Side) -> pd.DataFrame:
    found = rows_of(rows, dataset, side)
    return found[found["status"] == "done"]


def _means(sides: list[pd.DataFrame], metric: str) -> tuple[float, float]:
    return float(sides[0][f"test/{metric}"].mean()), float(sides[1][f"test/{metric}"].mean())


def _compared(plain: list[Contrast], sides: list[pd.DataFrame], ranks: Ranks, bootstrap: bool) -> list[Contrast]:
    """The contrasts of one pair with what their common seeds' ranks say."""
    keys = [{int(s): k for s, k in zip(p["seed"], p["run_key"], strict=True) if k in ranks} for p in sides]
    seeds = tuple(sorted(keys[0].keys() & keys[1].keys()))
    if not seeds:
        return plain
    users = {len(ranks[side[seed]]) for seed in seeds for side in keys}
    if len(users) > 1:
        counts = " and ".join(map(str, sorted(users)))
        one = plain[0]
        what = f"runs of {one.ours.method} and {one.theirs.method} on {one.dataset} rank {counts} users"
        raise InputError(what, "export the rows and ranks again, or run the study again")
    if users == {1}:
        return plain
    mine, other = (np.stack([ranks[side[seed]] for seed in seeds]) for side in keys)
    limits = intervals(kinds(mine, other), tuple(c.metric for c in plain)) if bootstrap else {}
    return [_tested(contrast, seeds, mine, other, limits.get(contrast.metric)) for contrast in plain]


def _tested(
    contrast: Contrast,
    seeds: tuple[int, ...],
    mine: np.ndarray,
    other: np.ndarray,
    interval: tuple[float, float] | None,
) -> Contrast:
    values = [mean_over_seeds(list(side), contrast.metric) for side in (mine, other)]
    return replace(
        contrast,
        seeds=seeds,
        compared=(float(values[0].mean()), float(values[1].mean())),
        test=paired_t_test(*values),
        wilcoxon=wilcoxon(*values),
        interval=interval,
        effect=effect_size(*values),
        detectable=detectable(*values),
    )
