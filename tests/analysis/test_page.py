"""The page's model and file: what stands behind cells, states, escaping, damaged and partial stores, size and time."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from page_store import ERROR, HOSTILE, cell_of, fill_large, fill_live, publish, write

from analysis.__main__ import main
from analysis.page import watch_page, write_page
from analysis.page.charts import ticks
from analysis.page.model import page_model
from analysis.page.render import INTERVAL_WIDTH, interval_svg
from analysis.page.runs import config_difference
from analysis.page.state import last_line, public
from analysis.report import write_report
from analysis.whole import load_whole
from bbqrec.errors import InputError
from bbqrec.store import Store

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


@pytest.fixture
def live(tmp_path) -> Store:
    """Only read, as the page does: who writes forgets what is damaged."""
    fill_live(Store(tmp_path / "live"))
    return Store(tmp_path / "live", writable=False)


def model_of(source, **more) -> dict:
    made = page_model(load_whole(source, needed=False), **more)
    assert json.loads(json.dumps(made, allow_nan=False)) == made, "plain JSON types, and no NaN"
    return made


def part(model: dict, name: str) -> dict:
    found = [p for section in model["sections"] for p in section["parts"] if p["name"] == name]
    assert len(found) == 1, [p["name"] for section in model["sections"] for p in section["parts"]]
    return found[0]


def texts(table: dict) -> list[list[str]]:
    return [[cell["text"] for cell in row] for row in table["rows"]]


def entries(model: dict, name: str) -> dict[tuple[str, str, str], dict]:
    table = part(model, name)
    return {
        (group["dataset"], line["name"], label): entry
        for group in table["groups"]
        for line in group["lines"]
        for label, entry in zip(table["labels"], line["entries"], strict=True)
    }


def test_every_cell_knows_its_runs_and_every_run_is_there(live):
    model = model_of(live)
    found = entries(model, "table3") | entries(model, "table4")
    assert found["Toys", "N@10", "BBQRec"]["runs"] == "toys-bbqrec,toys-bbqrec-1"
    assert found["Toys", "R@5", "w/o U"]["runs"] == "toys-bbqrec-no-u"
    keys = {key for entry in found.values() for key in entry["runs"].split(",") if key}
    keys |= {row[0]["runs"] for row in part(model, "all-cells")["rows"]}
    assert keys == set(model["runs"]), "no cell without a record, and no record that nothing shows"
    record = model["runs"]["toys-bbqrec"]
    assert record["shown"] == ["ablations: BBQRec, seed 0", "ablations: w/o image, seed 0"]
    groups = {head: dict(pairs) for head, pairs in record["groups"]}
    assert groups["Keys"] == {"run": "toys-bbqrec", "quantizer": "q-toys-bbqrec"}
    assert groups["Data"] == {
        "data set": "toys",
        "fingerprint": "f" * 64,
        "seed": "0",
        "signals": "id+text+image",
        "profile": "small",
    }
    assert groups["Code and machine"]["commit"] == "0123456789abcdef"
    assert groups["Cost"]["recommender"] == "1.00 h"
    assert float(groups["Scores"]["test N@10"]) == pytest.approx(
        load_whole(live).studies["ablations"].rows.set_index("run_key")["test/ndcg@10"]["toys-bbqrec-1"], abs=0.05
    )


def test_config_against_the_full_model_of_the_same_data_set_and_seed(live):
    runs = model_of(live)["runs"]
    changed = runs["toys-bbqrec-no-id"]
    assert changed["full"] == "toys-bbqrec"
    assert ["quantizer.levels", "3", "2"] in changed["diff"]
    assert ["quantizer.components", "id, text, image", "id"] in changed["diff"]
    assert ["recommender.buckets", "100", "100"] not in changed["diff"]
    assert runs["toys-bbqrec-no-text"]["diff"] == []
    assert runs["toys-bbqrec-1"]["full"] == "toys-bbqrec-1"
    assert "diff" not in runs["toys-bbqrec-e"], "a pending run has no config yet"
    stages = config_difference({"quantizer.levels": 3, "recommender.heads": 4}, {"recommender.heads": 2})
    assert stages == [["quantizer", "its own", "none"], ["recommender.heads", "4", "2"]]


def test_cells_without_a_number_say_why(live):
    model = model_of(live)
    assert {state["state"]: state["count"] for state in model["states"]} == {
        "done": 6,
        "running": 2,
        "pending": 2,
        "failed": 2,
    }
    running = {row[0]: row[4:] for row in texts(part(model, "cells-running"))}
    assert running["w/o MIM"] == ["recommender", "12 of 60", "0.13 h", "0.0480"], "10 s an epoch, 48 to go"
    assert running["w/o Rec"][:2] == ["quantizer", "3"], "the quantizer's epochs are not known"
    failed = {row[1]: row[4] for row in texts(part(model, "cells-failed"))}
    assert failed == {"Toys": f"RuntimeError: {HOSTILE} in …/w", HOSTILE: "out of memory"}
    pending = {row[0]: row[4] for row in texts(part(model, "cells-pending"))}
    assert pending == {"E": "", "S": "the store: recommender/toys-bbqrec-s/good/row.json is damaged"}
    curves = part(model, "curves-ablations")
    partial = [s for panel in curves["panels"] for s in panel["series"] if s["partial"]]
    assert [(s["name"], len(s["points"])) for s in partial] == [("w/o MIM, seed 0", 12)]
    found = entries(model, "table3")
    assert {label: found["Toys", "R@5", label].get("state") for label in ("w/o MIM", "w/o Rec", "w/o U", "BBQRec")} == {
        "w/o MIM": "running",
        "w/o Rec": "running",
        "w/o U": "failed",
        "BBQRec": None,
    }
    assert any("of computing to go" in text for section in model["sections"] for text in section["about"])


def test_an_epoch_count_in_the_setting_or_the_overrides_makes_an_eta(tmp_path):
    store = Store(tmp_path / "store")
    cells = [cell_of("bbqrec", "toys", 0, "one", "running", setting="recommender.epochs=20")]
    write(store, "mine", [*cells, cell_of("tiger", "toys", 0, "two", "running")], overrides={"recommender.epochs": 30})
    log = json.dumps({"seconds": 50.0, "metrics": []}).encode()
    for key in ("one", "two"):
        store.save_progress("recommender", key, "work", 5, {"log.json": log})
    found = texts(part(model_of(store), "cells-running"))
    assert [row[5:7] for row in found] == [["5 of 20", "2.5 min"], ["5 of 30", "4.2 min"]]


def test_no_text_of_a_user_becomes_markup(live, tmp_path):
    claim = SimpleNamespace(section="5.2", sentence=HOSTILE, verdict="not run", details="</script><script>alert(1)")
    page = write_page(live, tmp_path / "page.html", judge=lambda whole: [claim]).read_text()
    assert HOSTILE not in page and "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "somebody" not in page, "nobody's folders are published"
    assert live.url not in page
    assert "python sweeps/ablations.py --store …/runs --dataset …/toys" in page
    assert len(re.findall(r'(?:src|href)="(?!#)', page)) == 0 and "url(" not in page, "nothing is fetched"


def test_claims_are_a_table_and_a_card(live):
    verdicts = ("holds", "contradicted", "holds", "not run")
    claims = [SimpleNamespace(section="5.2", sentence=f"s{i}", verdict=v, details="d") for i, v in enumerate(verdicts)]
    model = model_of(live, claims=claims)
    assert texts(part(model, "claims"))[1] == ["5.2", "s1", "contradicted", "d"]
    card = next(card for card in model["cards"] if card["name"] == "claims hold")
    assert (card["value"], card["note"]) == ("2 of 4", "1 contradicted, 1 not run")
    assert not any(section["name"] == "claims-of-the-paper" for section in model_of(live)["sections"])


def test_the_same_store_makes_the_same_bytes_and_a_copy_elsewhere_too(live, tmp_path):
    first = write_page(live.url, tmp_path / "a.html").read_bytes()
    assert first == write_page(live.url, tmp_path / "b.html").read_bytes()
    moved = Path(live.url).rename(tmp_path / "elsewhere")
    assert first == write_page(str(moved), tmp_path / "c.html").read_bytes()


def test_a_page_of_exports_has_what_exports_have(tmp_path, make_baselines):
    write_page(RESULTS / "toys-small", tmp_path / "page.html")
    model = model_of(RESULTS / "toys-small")
    assert [section["title"] for section in model["sections"]] == [
        "Ablations",
        "Comparison with the baselines",
        "Collisions",
        "Every cell",
        "Codebooks and collisions",
        "Inference",
    ]
    gain = entries(model, "table2")["Toys", "N@10", "Improv."]
    table = (RESULTS / "toys-small/baselines/table2.md").read_text().splitlines()
    printed = next(line.split("|")[-2].strip() for line in table if "| N@10 " in line)
    assert gain["text"] + "*" * gain["star"] == printed.replace("-", "−")
    assert gain["star"], "and what is significant looks it"
    assert len(gain["runs"].split(",")) == 2, "those of both sides"
    tests = part(model, "tests-table2")
    row = dict(zip([c["name"] for c in tests["columns"]], tests["rows"][3], strict=True))
    assert row["Verdict"]["text"] == "significant"
    low, middle, high, half = row["95 % interval"]["interval"]
    assert -4 * half <= low < middle < high < 0 and half > 0
    assert all("diff" not in record for record in model["runs"].values())


def test_rows_of_a_report_and_its_store_show_the_same_tables(live, tmp_path):
    publish(Store(live.url), cell_of("bbqrec/e", "toys", 0, "toys-bbqrec-e"), 400)
    write_report(live, "ablations", tmp_path / "export")
    ours, theirs = model_of(live), model_of(tmp_path / "export")
    for name in ("table3", "table4", "tests-table4", "figure4", "costs-ablations", "codebooks"):
        if name == "codebooks":  # the size of a codebook is in the config
            used = [[row[5]["text"] for row in part(model, name)["rows"]] for model in (ours, theirs)]
            assert used[0] == used[1]
        else:
            assert part(ours, name) == part(theirs, name)


def broken(live: Store, how: str) -> str:
    """Breaks a store; returns what its page has to name."""
    url = Path(live.url)
    if how == "no rows":
        for path in (url / "recommender").glob("*/good/row.json"):
            path.unlink()
        return "toys-bbqrec-no-id/good/row.json is damaged"
    if how == "ranks":
        path = url / "recommender/toys-bbqrec/good/ranks_test.npy"
        path.write_bytes(b"")
        return "toys-bbqrec"
    if how == "curves":
        path = url / "recommender/toys-bbqrec-1/good/metrics.jsonl"
        path.write_text("{")
        return "toys-bbqrec-1"
    if how == "progress":
        (url / "recommender/toys-bbqrec-no-mim/progress/latest.json").write_text('{"checkpoints": [{}]}')
        return "no checkpoint yet"
    if how == "other study":
        (url / "study/baselines.json").write_text("{")
        return "study/baselines.json is not JSON"
    if how == "study of nothing":
        (url / "study/baselines.json").write_text("[]")
        return "study/baselines.json lists no cells"
    (url / "study/ablations.json").write_text('{"name": "ablations", "cells": [{"method": 3}]}')
    return "study/ablations.json has a cell without"


@pytest.mark.parametrize(
    "how", ["no rows", "ranks", "curves", "progress", "other study", "study of nothing", "only study"]
)
def test_a_damaged_store_makes_a_page_that_names_what_is_missing(live, tmp_path, capsys, how):
    named = broken(live, how)
    assert main(["page", "--store", live.url, "--out", str(tmp_path / "page.html")]) == 0
    assert named in (tmp_path / "page.html").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_whose_ranks_are_another_s_leaves_its_study_untested(tmp_path):
    store = Store(tmp_path / "store")
    cells = [cell_of(method, "toys", 0, method.replace("/", "-")) for method in ("bbqrec", "bbqrec/s")]
    write(store, "ablations", cells)
    publish(store, cells[0], 400)
    publish(store, cells[1], 300)
    model = model_of(store)
    assert [t for t in model["troubles"] if "rank 300 and 400 users" in t and "is not tested" in t], model["troubles"]
    assert "is not tested" in write_page(store, tmp_path / "page.html").read_text(), "with the claims, too"
    assert part(model, "all-cells")["rows"], "the rest is there"


def test_an_empty_store_and_exports_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "No study can be read here" in write_page(tmp_path / "empty", tmp_path / "a.html").read_text()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "rows.csv").write_bytes(b"\xff\xfe\x00")
    assert "cannot read …/rows.csv" in write_page(tmp_path / "bad", tmp_path / "b.html").read_text()


def test_what_is_not_there_or_not_writable_ends_in_a_line(tmp_path, capsys):
    assert main(["page", "--store", str(tmp_path / "no"), "--out", str(tmp_path / "a.html")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.html"
    assert main(["page", "--store", str(RESULTS / "beauty-small"), "--out", str(out)]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["page", "--store", str(RESULTS / "beauty-small"), "--watch", "0"]) == 2
    assert "give at least 1 second" in capsys.readouterr().err


def test_watching_follows_the_study_and_ends_in_a_page_that_stays(live, tmp_path):
    out = tmp_path / "page.html"
    seen = []

    def finish(seconds: float) -> None:
        seen.append((seconds, out.read_text()))
        if len(seen) == 1:
            publish(Store(live.url), cell_of("bbqrec/e", "toys", 0, "toys-bbqrec-e"), 400)
        elif len(seen) == 2:
            Path(live.url).rename(tmp_path / "away")
        else:
            (tmp_path / "away").rename(live.url)

    assert len(list(watch_page(live.url, out, 7, rounds=4, sleep=finish))) == 3, "one round found no store"
    (first, second, third), last = [page for _, page in seen], out.read_text()
    assert {seconds for seconds, _ in seen} == {7}
    assert 'data-refresh="7"' in first and '<meta http-equiv="refresh" content="7">' in first
    assert "6 done" in first and "7 done" in second
    assert third == second, "it stays as it was"
    assert "7 done" in last and "refresh" not in last.replace("dataset.refresh", "")
    with pytest.raises(InputError, match="does not exist"):
        next(watch_page(tmp_path / "nowhere", out, 7))


@pytest.mark.e2e
def test_ctrl_c_ends_the_watching_with_a_page_that_stays(live, tmp_path):
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "analysis", "page", "--store", live.url, "--out", str(out), "--watch", "1"]
    # A shell's background process would ignore the signal.
    watching = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 60
        while not out.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "data-refresh=" in out.read_text()
        watching.send_signal(signal.SIGINT)
        said = watching.communicate(timeout=60)[1]
    finally:
        watching.kill()
    assert watching.returncode == 0 and said == ""
    assert "data-refresh=" not in out.read_text() and "6 done" in out.read_text()


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 0.0871, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 3, [3, 3.2, 3.4, 3.6, 3.8, 4]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low, high, found):
    assert ticks(low, high) == pytest.approx(found)


def test_an_interval_beyond_the_scale_is_an_arrow_within_it():
    assert "<circle" in interval_svg([-0.1, 0.2, 0.5, 1.0]) and "interval none" in interval_svg([-0.1, 0.2, 0.5, 1.0])
    cut = interval_svg([3.0, 4.0, 5.0, 1.0])
    assert "<circle" not in cut and "interval more" in cut
    assert max(float(x) for x in re.findall(r"[MHL]([\d.]+)", cut)) <= INTERVAL_WIDTH
    left = interval_svg([-5.0, -4.0, -3.0, 1.0])
    assert "interval less" in left and min(float(x) for x in re.findall(r"[MHL]([\d.]+)", left)) >= 0


def test_errors_and_paths_as_the_page_shows_them():
    assert last_line(ERROR).startswith("RuntimeError: ")
    assert last_line(None) == last_line(" \n") == ""
    store = SimpleNamespace(url="/data/runs")
    assert public("cannot read /data/deep/rows.csv (x)", store) == "cannot read …/rows.csv (x)"
    assert public("see s3://bucket/a/b and 3/4/5") == "see s3://bucket/a/b and 3/4/5"
    command = "x.py --cluster 10.0.0.5:6379 --mlflow=http://me:secret@host:5000 --set a=1"
    assert public(command) == "x.py --cluster … --mlflow=… --set a=1"
    assert public("x.py --cluster --seeds 3") == "x.py --cluster --seeds 3"
    assert (
        public("InputError: /data/toys on node7 is not the data set ab") == "InputError: …/toys is not the data set ab"
    )


@pytest.mark.slow
def test_five_hundred_runs_of_forty_thousand_users_in_a_minute_and_two_gibibytes(tmp_path):
    store = Store(tmp_path / "store")
    assert fill_large(store) >= 500
    begun = time.monotonic()
    command = [sys.executable, "-m", "analysis", "page", "--store", store.url, "--out", str(tmp_path / "page.html")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert time.monotonic() - begun < 60
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 2**20  # KiB
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="state significant"') > 50, "all statistics are in it"
    assert len(page) < 8e6
    rows = load_whole(store).studies["baselines"].rows
    assert isinstance(rows, pd.DataFrame) and len(rows) == 220
