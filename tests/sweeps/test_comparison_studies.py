"""The studies of baselines and of collisions: what they plan and refuse, and numbers from the store to the table."""

from pathlib import Path

import pytest

from analysis.baselines import TABLE_2
from analysis.collisions import LEVELS, table5
from analysis.report import write_report
from analysis.rows import load_rows
from bbqrec.artefacts import load_codes
from bbqrec.data import load_dataset
from bbqrec.errors import InputError
from bbqrec.methods import METHODS
from bbqrec.semantic_ids import collisions
from bbqrec.stages import run_all, run_quantizer
from sweeps import baselines
from sweeps import collisions as study_of_collisions
from sweeps.baselines import Baselines
from sweeps.collisions import Collisions
from sweeps.command import main
from sweeps.ledger import Ledger

SETTINGS = tuple({LEVELS: number} for number in (2, 3, 4))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_methods_of_table_2_in_the_paper_s_order():
    tagged = {name for name, method in METHODS.items() if "Table 2" in method.table}
    assert set(baselines.VARIANTS) == tagged, "every method of the table has a column"
    assert list(baselines.VARIANTS) == sorted(tagged, key=TABLE_2.methods.index)
    assert {"sasrec", "sasrec-f", "tiger", "bbqrec"} <= tagged


def test_the_methods_of_table_5():
    assert [name for name in ("tiger", "letter", "bbqrec") if name in METHODS] == list(study_of_collisions.VARIANTS)


def test_settings_are_cells_of_their_own_and_quantizers_need_no_recommender(study, store):
    plan = study(methods=("tiger", "bbqrec", "bbqrec/s"), settings=SETTINGS, stage="quantizer", seeds=2).plan(store)
    assert len(plan.cells) == 18 and {run.stage for run in plan.runs.values()} == {"quantizer"}
    assert len(plan.runs) == len(plan.missing) == 12, "S has the quantizers of the full model"
    assert plan.asked == {"quantizer": 18, "recommender": 0} and plan.summary()["shared"] == 6
    for cell in plan.cells:
        levels = plan.runs[cell.run_key].config.quantizer.levels
        assert cell.run_key == cell.quantizer_key and cell.setting == f"quantizer.levels={levels}"
        assert cell.note == ("the same run as bbqrec" if cell.method == "bbqrec/s" else None)
    names = [run.name for run in plan.runs.values()]
    assert len(set(names)) == 12 and "toy tiger seed 1 quantizer.levels=4 quantizer" in names
    assert "settings: quantizer.levels=2, quantizer.levels=3, quantizer.levels=4" in plan.scope()


def test_the_usual_number_of_levels_is_the_run_of_the_other_studies(study, store):
    usual = study(methods=("bbqrec", "tiger")).plan(store)
    varied = study(methods=("bbqrec", "tiger"), settings=SETTINGS, stage="quantizer").plan(store)
    shared = usual.runs.keys() & varied.runs.keys()
    assert shared == {cell.quantizer_key for cell in usual.cells}
    assert usual.key != varied.key and study(methods=("bbqrec", "tiger")).plan(store).key == usual.key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ("sasrec",)}, "variant sasrec has no quantizer"),
        ({"settings": ()}, "no cells"),
        ({"overrides": {LEVELS: "5"}}, r"--set quantizer\.levels is what this study varies"),
        ({"settings": ({LEVELS: 0},)}, "levels=0"),
        ({"settings": ({"quantizer.level": 2},)}, "did you mean levels"),
    ],
)
def test_what_a_study_of_quantizers_refuses(study, store, options, said):
    with pytest.raises(InputError, match=said):
        study(**{"methods": ("tiger",), "settings": SETTINGS, "stage": "quantizer", **options}).plan(store)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (Collisions, ["--levels", "0"], "levels=0"),
        (Collisions, ["--levels", "two"], "two"),
        (Collisions, ["--variants", "sasrec"], "variant sasrec has no quantizer"),
        (Collisions, ["--set", "quantizer.levels=3"], "is what this study varies"),
        (Baselines, ["--variants", "sasrek"], "did you mean sasrec?"),
        (Baselines, ["--seeds", "0"], "--seeds 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(here, capsys, folder, command, words, said):
    try:
        status = main(command, ["--dataset", str(folder), "--dry-run", *words])
    except SystemExit as stop:  # the parser's own
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and said in error
    assert not list(here.iterdir())


def test_dry_runs(here, capsys, folder):
    assert main(Collisions, ["--dataset", str(folder), "--dry-run", "--levels", "2", "4", "2"]) == 0
    printed = capsys.readouterr().out
    cells = 2 * len(study_of_collisions.VARIANTS)
    assert f"Plan of study collisions: {cells} cells" in printed and "quantizer.levels=4" in printed
    assert main(Baselines, ["--dataset", str(folder), "--dry-run", "--seeds", "2"]) == 0
    assert f"Plan of study baselines: {2 * len(baselines.VARIANTS)} cells" in capsys.readouterr().out


def test_collisions_from_the_codes_to_the_table(study, store, folder, tmp_path):
    plan = study(methods=("tiger", "bbqrec"), settings=SETTINGS, stage="quantizer", name="collisions").plan(store)
    dataset = load_dataset(folder)
    for run in plan.missing:
        list(run_quantizer(run.config, dataset, store, attempt="here"))
    done = study(methods=("tiger", "bbqrec"), settings=SETTINGS, stage="quantizer", name="collisions").plan(store)
    assert done.missing == () and done.key == plan.key
    ledger = Ledger(done, store)
    assert ledger.complete and ledger.best is None
    ledger.write(final=True)
    assert store.load_json("study/collisions.json")["stage"] == "quantizer"
    write_report(store, "collisions", tmp_path / "out")
    (lines,) = table5(load_rows(tmp_path / "out", "collisions")).groups
    found = {line.metric: [entry.mean for entry in line.entries] for line in lines}
    for cell in done.cells:
        config = done.runs[cell.run_key].config
        excess = collisions(load_codes(config, store).codes).excess
        place = {"tiger": 0, "bbqrec": 2}[cell.method]
        assert found[f"L={config.quantizer.levels}"][place] == excess
    assert found["L=2"][0] > 0 and found["L=2"][1] is None


def test_baselines_from_the_runs_to_the_table(study, store, folder, tmp_path):
    options = {"name": "baselines", "methods": ("sasrec", "bbqrec"), "overrides": {"recommender.epochs": 2}}
    plan = study(**options).plan(store)
    dataset = load_dataset(folder)
    for cell in plan.cells:
        list(run_all(plan.runs[cell.run_key].config, dataset, store, attempt="here"))
    Ledger(study(**options).plan(store), store).write(final=True)
    write_report(store, "baselines", tmp_path / "out")
    table = (tmp_path / "out" / "table2.md").read_text()
    assert "Holm-corrected over the table (4 cells)" in table and "pending" not in table
    write_report(tmp_path / "out", "baselines", tmp_path / "again")
    assert (tmp_path / "again" / "table2.md").read_text() == table
