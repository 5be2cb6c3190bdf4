"""The table of tried and chosen hyperparameters: from files as sweeps/tuning.py writes them."""

import json

import pytest
from rendered import DOCUMENTS, check_golden, set_by_latex

from analysis.__main__ import main
from analysis.tuning import load_tuned, tuning_latex, tuning_markdown
from bbqrec.errors import InputError

RATE, DROPOUT = "recommender.learning_rate", "recommender.dropout"
SPACE = {RATE: {"low": 0.0003, "high": 0.005}, DROPOUT: {"values": [0.1, 0.2, 0.4]}}


def write(folder, method="sasrec", dataset="toys", space=SPACE, chosen=None, **changes):
    """A tuned config of two trials, the default first."""
    default = {RATE: 0.001, DROPOUT: 0.4, "quantizer.beta": 1.0, "recommender.d_model": 64}
    default = {path: default[path] for path in space}
    best = {**default, **(chosen or {})}
    found = {
        "method": method,
        "dataset": dataset,
        "overrides": best,
        "score": 0.0553,
        "default_score": 0.0529,
        "seed_points": [],
        "budget": {"trials": 2, "epochs": 25, "grace": 6, "factor": 3, "stop": "none", "parallel": 1},
        "space": space,
        "trials": [{"overrides": default}, {"overrides": best}],
        **changes,
    }
    path = folder / dataset / f"{method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def tuned(tmp_path):
    """Three methods on two data sets; LETTER diverged by default, SASRec had a seed point."""
    folder = tmp_path / "tuned"
    write(folder, "sasrec", chosen={DROPOUT: 0.2}, seed_points=[{DROPOUT: 0.2}])
    write(folder, "sasrec", "beauty")
    own = {"quantizer.beta": {"values": [0.5, 1.0, 2.0]}, "recommender.d_model": {"values": [64, 128]}}
    write(folder, "letter", space={RATE: SPACE[RATE] | {"high": 0.003}, **own}, default_score=None)
    (folder / "toys" / "sasrec.pbt.json").write_text("{}")
    return folder


def test_golden(tuned):
    check_golden("tuning.md", tuning_markdown(load_tuned(tuned)))
    check_golden("tuning.tex", tuning_latex(load_tuned(tuned)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_latex_sets_it(tmp_path, tuned, document):
    set_by_latex(tmp_path, document, [tuning_latex(load_tuned(tuned))])


def test_what_was_chosen_stands_with_the_default_that_it_replaces(tuned):
    lines = [line for line in tuning_markdown(load_tuned(tuned)).splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0][:6] == ["Dataset", "Method", "trials", "epochs", "default", "best"]
    assert [row[:2] for row in rows[1:]] == [["Beauty", "SASRec"], ["Toys", "SASRec"], ["Toys", "LETTER"]]
    assert rows[2][2:] == ["2", "25", "0.0529", "0.0553", "0.001", "0.2 (0.4)", "--", "--"]
    assert rows[3][2:] == ["2", "25", "--", "0.0553", "0.001", "--", "1", "64"]


def test_one_data_set_alone(tuned):
    assert [found.dataset for found in load_tuned(tuned / "beauty")] == ["beauty"]


def test_budgets_that_differ_are_named(tuned):
    assert "- Budget of every method: 2 trials, none stopped." in tuning_markdown(load_tuned(tuned))
    write(tuned, "tiger", budget={"trials": 2, "epochs": 25, "stop": "asha", "factor": 3})
    write(tuned, "bbqrec", budget={"trials": 2, "epochs": 8, "stop": "asha", "factor": 4})
    said = tuning_markdown(load_tuned(tuned))
    assert "The budgets differ: 2 trials, none stopped (SASRec on Beauty, SASRec on Toys, LETTER on Toys); " in said
    assert "2 trials, stopped by ASHA (the best 1 / 3 go on) (TIGER on Toys); " in said
    assert "2 trials, stopped by ASHA (the best 1 / 4 go on) (BBQRec on Toys)." in said
    assert "- Trials given by hand: 1 of SASRec on Toys." in said


def test_the_command_prints_both_forms(tuned, capsys):
    assert main(["tuning", "--tuned", str(tuned)]) == 0
    assert capsys.readouterr().out == tuning_markdown(load_tuned(tuned))
    assert main(["tuning", "--tuned", str(tuned), "--tex"]) == 0
    assert capsys.readouterr().out == tuning_latex(load_tuned(tuned))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read"),
        ("[]", "is no tuned config"),
        ("{}", "is no tuned config (KeyError('budget'))"),
        ('{"budget": 3}', "is no tuned config"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tuned, capsys, text, said):
    (tuned / "toys" / "sasrec.json").write_text(text)
    assert main(["tuning", "--tuned", str(tuned)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and "sasrec.json" in error


def test_a_folder_without_any_says_how_to_make_them(tmp_path):
    with pytest.raises(InputError, match="has no tuned configs: tune first: python sweeps/tuning"):
        load_tuned(tmp_path)
