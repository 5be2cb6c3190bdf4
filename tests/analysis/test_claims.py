"""The paper's claims: what is compared, what each verdict takes, and that every method and field named exists."""

import dataclasses
import json

import pandas as pd
import pytest
from test_contrasts import with_ranks

from analysis.claims import claims, claims_frame, claims_latex, claims_markdown
from analysis.labels import METHOD_LABELS
from analysis.paper_claims import CLAIMS, Better, Fewer
from analysis.whole import StudyPart, Whole
from bbqrec.config import QuantizerConfig, RecommenderConfig


def whole_of(*parts: tuple[str, pd.DataFrame, dict], inference=None) -> Whole:
    made = {
        name: StudyPart(name=name, source="x", rows=rows, ranks=ranks, curves=pd.DataFrame(), about={})
        for name, rows, ranks in parts
    }
    return Whole(studies=made, inference=inference)


def verdicts(whole: Whole) -> dict[str, str]:
    return {claim.sentence: claim.verdict for claim in claims(whole)}


def by_name(found: dict[str, str], part: str) -> str:
    (verdict,) = [verdict for sentence, verdict in found.items() if part in sentence]
    return verdict


def test_every_side_of_every_claim_exists():
    fields = {f"quantizer.{f.name}" for f in dataclasses.fields(QuantizerConfig)}
    fields |= {f"recommender.{f.name}" for f in dataclasses.fields(RecommenderConfig)}
    for claim in CLAIMS:
        assert claim.checks, claim.sentence
        for check in claim.checks:
            if isinstance(check, Better):
                for side in (check.ours, check.theirs):
                    assert side.method in METHOD_LABELS
                    assert side.setting is None or side.setting.partition("=")[0] in fields
            elif isinstance(check, Fewer):
                assert {check.ours, check.theirs} <= METHOD_LABELS.keys()


def test_the_four_verdicts(make_rows):
    """By the planted ranks w/o MIM is behind, w/o U ahead, the rest even."""
    rows, ranks = with_ranks(make_rows(("toys", "synthetic"), seeds=2))
    found = verdicts(whole_of(("ablations", rows, ranks)))
    assert by_name(found, "Eliminating the MIM loss") == "holds"
    assert by_name(found, "shared codebook") == "contradicted"
    assert by_name(found, "similarity module") == "not significant"
    assert by_name(found, "LETTER improves on TIGER") == "not run"


def test_a_loss_on_one_data_set_contradicts_and_untested_is_not_significant(make_rows):
    rows, ranks = with_ranks(make_rows(("toys", "synthetic"), seeds=2))
    there = rows["dataset"] == "toys"
    swapped = rows["method"].replace({"bbqrec/no-mim": "bbqrec/no-u", "bbqrec/no-u": "bbqrec/no-mim"})
    mixed = rows.assign(method=rows["method"].where(there, swapped))
    assert by_name(verdicts(whole_of(("ablations", mixed, ranks))), "Eliminating the MIM loss") == "contradicted"
    assert by_name(verdicts(whole_of(("ablations", rows, {}))), "Eliminating the MIM loss") == "not significant"


def test_what_is_missing_keeps_a_claim_from_holding(make_baselines):
    rows, ranks = make_baselines(methods=("gru4rec", "sasrec", "bbqrec"), seeds=2)
    claim = next(c for c in claims(whole_of(("baselines", rows, ranks))) if "worst of the traditional" in c.sentence)
    assert [c.verdict for c in claim.comparisons] == ["holds", "not run"] and claim.verdict == "not run"
    assert "Toys SASRec over GRU4Rec 0." in claim.details and "not run: BERT4Rec over GRU4Rec" in claim.details


def test_studies_are_not_mixed(make_baselines, make_rows):
    """SASRec of one study and TIGER of another may differ in more than the method."""
    rows, ranks = make_baselines(methods=("sasrec", "bbqrec"))
    other, more = make_baselines(methods=("gru4rec", "bbqrec"))
    whole = whole_of(("baselines", rows, ranks), ("mine", other.assign(study="mine"), more))
    claim = next(c for c in claims(whole) if "worst of the traditional" in c.sentence)
    assert claim.verdict == "not run" and claim.details == ""


def test_collisions_are_counted(make_quantizers):
    rows = make_quantizers(levels=(2, 3, 4))
    found = verdicts(whole_of(("collisions", rows, {})))
    assert by_name(found, "LETTER has fewer collisions") == by_name(found, "BBQRec has fewer collisions") == "holds"
    worse = rows.copy()
    worse.loc[(rows["method"] == "letter") & (rows["setting"] == "quantizer.levels=4"), "collisions/excess"] = 9999
    assert by_name(verdicts(whole_of(("collisions", worse, {}))), "LETTER has fewer collisions") == "contradicted"


def test_settings_of_the_grids(make_rows):
    rows, ranks = with_ranks(make_rows(methods=("bbqrec", "bbqrec/no-mim", "bbqrec/s", "bbqrec/e")))
    values = {"bbqrec": "3", "bbqrec/no-mim": "1", "bbqrec/s": "2", "bbqrec/e": "4"}
    settings = "quantizer.levels=" + rows["method"].map(values)
    claim = next(
        c
        for c in claims(whole_of(("hyperparameters", rows.assign(method="bbqrec", setting=settings), ranks)))
        if "length L" in c.sentence
    )
    assert {c.what: c.verdict for c in claim.comparisons} == {
        "levels=3 over levels=1": "holds",
        "levels=3 over levels=2": "not significant",
        "levels=3 over levels=4": "not significant",
    }
    assert claim.verdict == "not significant"


def test_what_is_written_of_them(make_rows):
    rows, ranks = with_ranks(make_rows(seeds=2))
    found = claims(whole_of(("ablations", rows, ranks)))
    table = claims_frame(found)
    assert len(table) == sum(len(claim.comparisons) for claim in found) and set(table["section"]) >= {"5.2", "5.6.2"}
    markdown = claims_markdown(found)
    assert markdown.count("\n| 5.") == len(CLAIMS) and "| contradicted    | Toys BBQRec over w/o U" in markdown
    assert claims_latex(found).count(r"\\") == len(CLAIMS) + 3


@pytest.mark.parametrize(("seconds", "verdict"), [(0.016, "holds"), (0.025, "contradicted")])
def test_times(tmp_path, make_rows, seconds, verdict):

    line = {
        "dataset": "beauty",
        "together": 1,
        "low": 0.01,
        "high": 0.03,
        "users": 50,
        "repetitions": 3,
        "weights": "w",
    }
    measured = [
        line | {"method": method, "beam": beam, "seconds": value}
        for beam in (50, 100)
        for method, value in (("tiger", 0.01), ("bbqrec", seconds))
    ]
    (tmp_path / "inference.json").write_text(json.dumps({"about": {}, "measurements": measured}))
    whole = whole_of(("ablations", make_rows(), {}), inference=tmp_path / "inference.json")
    assert by_name(verdicts(whole), "inference time") == verdict
