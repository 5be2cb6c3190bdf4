"""Table 6: seconds per user and their ratio beside the paper's, and what cannot be a measurement."""

import json
from dataclasses import asdict, replace

import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.inference import METHODS, Measured, Measurement, load_measured, table6
from analysis.report import write_inference
from analysis.tables import latex, markdown
from bbqrec.errors import InputError

ABOUT = {"device": "NVIDIA A100", "threads": 1, "profile": "paper", "overrides": "recommender.buckets=7"}


def measured(**changes) -> Measured:
    """TIGER takes 10 ms per user at beam 50, BBQRec 1.3 times as long; together all are 16 times as fast."""
    found = [
        Measurement(
            dataset="beauty",
            method=method,
            beam=beam,
            together=together,
            seconds=0.01 * (beam / 50) * (1.3 if method == "bbqrec" else 1.0) / (1 if together == 1 else 16),
            low=0.0095 * (beam / 50) * (1.3 if method == "bbqrec" else 1.0) / (1 if together == 1 else 16),
            high=0.011 * (beam / 50) * (1.3 if method == "bbqrec" else 1.0) / (1 if together == 1 else 16),
            users=100 * together,
            repetitions=5,
            weights="untrained, IDs of quantizer 0123" if method == "tiger" else "run 4567",
        )
        for together in (64, 1)
        for beam in (100, 50)
        for method in METHODS
    ]
    return Measured(about=ABOUT, measurements=tuple(replace(m, **changes) for m in found))


def test_golden():
    made = table6(measured())
    check_golden("table6.tex", latex(made))
    check_golden("table6.md", markdown(made))
    check_golden("empty_table6.md", markdown(table6(Measured(about={}, measurements=()))))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_latex_sets_it(tmp_path, document):
    set_by_latex(tmp_path, document, [latex(table6(measured())), latex(table6(Measured(about={}, measurements=())))])


def test_times_and_ratios_beside_the_papers():
    (lines,) = table6(measured()).groups
    assert [line.metric for line in lines] == [f"{n}, beam {b}" for n in ("one user", "64 users") for b in (50, 100)]
    assert [entry.mean for entry in lines[1].entries] == pytest.approx([0.015, 0.024, 1.6, 0.02, 0.026, 1.3])
    assert [entry.mean for entry in lines[2].entries[:3]] == [None] * 3, "the paper decodes one user at a time"
    text = markdown(table6(measured()))
    assert "| Paper (Beauty) TIGER |" in text and "       1.30 |" in text
    assert "at most 10 % from the median" in text


def test_a_method_that_was_not_measured():
    one = measured()
    only = Measured(about={}, measurements=tuple(m for m in one.measurements if m.method == "bbqrec" and m.beam == 50))
    line = table6(only).groups[0][0]
    assert [entry.mean for entry in line.entries[3:]] == [None, pytest.approx(0.013), None]


def test_written_and_read_again(tmp_path):
    (tmp_path / "inference.json").write_text(json.dumps(asdict(measured())))
    assert load_measured(tmp_path) == load_measured(tmp_path / "inference.json") == measured()
    assert [path.name for path in write_inference(tmp_path, tmp_path / "out")] == ["table6.md", "table6.tex"]


def spoilt(**changes) -> dict:
    found = asdict(measured())
    found["measurements"] = [line | (changes if place == 3 else {}) for place, line in enumerate(found["measurements"])]
    return found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("{", "cannot read"),
        ([], "says nothing of its measurements"),
        ({"about": {}}, "lists no measurements"),
        ({"about": {}, "measurements": [3]}, "lists no measurements"),
        (spoilt(seconds=0), "seconds 0"),
        (spoilt(seconds="fast"), "seconds 'fast'"),
        (spoilt(high=float("inf")), "high inf"),
        (spoilt(low=float("nan")), "low nan"),
        (spoilt(beam=None), "beam None"),
        (spoilt(users=True), "users True"),
        (spoilt(method="tigger"), "unknown method 'tigger'"),
    ],
)
def test_what_cannot_be_measurements(tmp_path, content, said):
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "inference.json").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        load_measured(tmp_path)
    assert "\n" not in str(caught.value)
