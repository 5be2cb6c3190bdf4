"""The paper's claims judged by a store: each comparison, and what follows for the sentence.

- holds: every comparison was made, and every one is significant in the claimed direction;
- contradicted: one of them is significant in the other direction;
- not significant: none is contradicted, but one cannot be told from chance (or has no ranks to be tested by);
- not run: what was made holds, but something is missing, or all of it.

Comparisons of scores are two-sided paired t-tests of NDCG@10, Holm-corrected over all that were made for all claims. A
count of collisions and a ratio of times have no test: they are as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.cells import cell_of
from analysis.collisions import LEVELS, QUANTIZERS
from analysis.contrasts import Contrast, Side, contrasts, corrected, rows_of
from analysis.inference import load_measured
from analysis.labels import METHOD_LABELS, dataset_label, in_paper_order
from analysis.markup import markdown_document, text_table
from analysis.paper_claims import CLAIMS, Better, Fewer, PaperClaim, Within
from analysis.rows import COLLISIONS
from analysis.whole import Whole

Verdict = Literal["holds", "not significant", "contradicted", "not run"]
METRIC = "ndcg@10"
SAID = (
    "What Sections 5.2 to 5.6 of the paper claim, and what these runs say. Scores: NDCG@10 on the test split, "
    "two-sided paired t-tests over the users, Holm-corrected over all comparisons of this table."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison on one data set: what it says in numbers. `dataset` is "" where there was none to make it on."""

    dataset: str
    what: str
    verdict: Verdict
    numbers: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper and its verdict."""

    section: str
    sentence: str
    verdict: Verdict
    comparisons: tuple[Comparison, ...]

    @property
    def details(self) -> str:
        """What decided it, most telling first, in one line."""
        order = ("contradicted", "not significant", "holds", "not run")
        told = sorted((c for c in self.comparisons if c.numbers), key=lambda c: order.index(c.verdict))
        shown = [f"{dataset_label(c.dataset)} {c.what} {c.numbers}" for c in told[:SHOWN]]
        shown += [f"{len(told) - SHOWN} more"] if len(told) > SHOWN else []
        missing = dict.fromkeys(c.what for c in self.comparisons if c.verdict == "not run")
        return "; ".join([*shown, *([f"not run: {', '.join(missing)}"] if missing and told else [])])


HEADS = ("Section", "The paper says", "Verdict", "In numbers")
SHOWN = 3
"""Comparisons in the details of a claim; claims.csv has all."""


def claims(whole: Whole) -> list[Claim]:
    """Every claim of the paper, in its order, by what the studies hold."""
    asked = list(dict.fromkeys(check for claim in CLAIMS for check in claim.checks if isinstance(check, Better)))
    found: dict[tuple[Better, str], Contrast] = {}
    for check in asked:
        for contrast in _contrasts(whole, check):
            found.setdefault((check, contrast.dataset), contrast)
    found = dict(zip(found, corrected(list(found.values())), strict=True))
    return [_judged(claim, whole, found) for claim in CLAIMS]


def claims_frame(found: Sequence[Claim]) -> pd.DataFrame:
    """A row per comparison, for claims.csv."""
    lines = [
        (claim.section, claim.sentence, claim.verdict, c.dataset, c.what, c.verdict, c.numbers)
        for claim in found
        for c in claim.comparisons
    ]
    names = ["section", "claim", "verdict", "dataset", "comparison", "comparison_verdict", "numbers"]
    return pd.DataFrame(lines, columns=names)


def claims_markdown(found: Sequence[Claim]) -> str:
    """A row per claim."""
    return markdown_document(SAID, HEADS, _body(found), (), (), names=len(HEADS))


def claims_latex(found: Sequence[Claim]) -> str:
    """The same over as many pages as it takes (longtable, booktabs)."""
    return text_table(
        SAID, ["Section", "The paper says", "Verdict", "In numbers"], (0.08, 0.32, 0.13, 0.41), _body(found)
    )


def _body(found: Sequence[Claim]) -> list[list[str]]:
    return [[claim.section, claim.sentence, claim.verdict, claim.details] for claim in found]


def _contrasts(whole: Whole, check: Better) -> Iterator[Contrast]:
    """On every data set on which one study has both sides: studies are not mixed, they may differ in more."""
    for part in whole.studies.values():
        rows = part.rows[part.rows["stage"] == "recommender"]
        datasets = in_paper_order(list(rows["dataset"]))
        shared = [d for d in datasets if _runs(rows, d, check.ours) & _runs(rows, d, check.theirs)]
        pairs = [(d, check.ours, check.theirs) for d in datasets if d not in shared]  # one run is no comparison
        yield from contrasts(rows, part.ranks, pairs, metrics=(METRIC,), bootstrap=False)


def _runs(rows: pd.DataFrame, dataset: str, side: Side) -> set[str]:
    return set(rows_of(rows, dataset, side)["run_key"])


def _judged(claim: PaperClaim, whole: Whole, found: dict[tuple[Better, str], Contrast]) -> Claim:
    made: list[Comparison] = []
    for check in claim.checks:
        if isinstance(check, Better):
            here = [_scored(contrast) for (asked, _), contrast in found.items() if asked == check]
            what = f"{_name(check.ours)} over {_name(check.theirs)}"
        elif isinstance(check, Fewer):
            here, what = list(_counted(check, whole)), _fewer(check)
        else:
            here, what = list(_timed(check, whole)), f"time at beam {check.beam}"
        made += here or [Comparison(dataset="", what=what, verdict="not run")]
    verdicts = {comparison.verdict for comparison in made}
    worst: tuple[Verdict, ...] = ("contradicted", "not significant", "not run", "holds")
    verdict = next(v for v in worst if v in verdicts)
    return Claim(section=claim.section, sentence=claim.sentence, verdict=verdict, comparisons=tuple(made))


def _scored(contrast: Contrast) -> Comparison:
    ahead = contrast.means[0] > contrast.means[1]
    verdict: Verdict = "not significant" if not contrast.significant else "holds" if ahead else "contradicted"
    tested = "not tested" if contrast.p is None else f"p {contrast.p:.2g}"
    ours, theirs = contrast.compared or contrast.means  # of the seeds that were tested
    numbers = f"{ours:.4f} / {theirs:.4f} ({tested})"
    what = f"{_name(contrast.ours)} over {_name(contrast.theirs)}"
    return Comparison(dataset=contrast.dataset, what=what, verdict=verdict, numbers=numbers)


def _counted(check: Fewer, whole: Whole) -> Iterator[Comparison]:
    for part in whole.studies.values():
        rows = part.rows[(part.rows["stage"] == "quantizer") & (part.rows["setting"] == f"{LEVELS}={check.levels}")]
        for dataset in in_paper_order(list(rows["dataset"])):
            own = rows[rows["dataset"] == dataset]
            sides = [cell_of(own[own["method"] == m], {COLLISIONS: COLLISIONS}) for m in (check.ours, check.theirs)]
            if all(side.mean for side in sides):
                ours, theirs = (side.mean[COLLISIONS] for side in sides)
                verdict: Verdict = "holds" if ours < theirs else "not significant" if ours == theirs else "contradicted"
                yield Comparison(
                    dataset=dataset, what=_fewer(check), verdict=verdict, numbers=f"{ours:g} / {theirs:g} collisions"
                )


def _timed(check: Within, whole: Whole) -> Iterator[Comparison]:
    measured = () if whole.inference is None else load_measured(whole.inference).measurements
    single = {(m.dataset, m.method): m.seconds for m in measured if m.together == 1 and m.beam == check.beam}
    for dataset in in_paper_order([dataset for dataset, _ in single]):
        if {(dataset, "tiger"), (dataset, "bbqrec")} <= single.keys():
            ratio = single[dataset, "bbqrec"] / single[dataset, "tiger"]
            verdict: Verdict = "holds" if ratio <= check.ratio else "contradicted"
            what = f"time at beam {check.beam}"
            yield Comparison(dataset=dataset, what=what, verdict=verdict, numbers=f"{ratio:.2f} x TIGER's")


def _fewer(check: Fewer) -> str:
    return f"{QUANTIZERS[check.ours].plain} below {QUANTIZERS[check.theirs].plain} at L={check.levels}"


def _name(side: Side) -> str:
    if side.setting is not None:
        return side.setting.partition(".")[2]
    return METHOD_LABELS[side.method].plain
