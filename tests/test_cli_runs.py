"""`bbqrec runs` as a user types it: on a local store and on S3, whole, damaged and full of leftovers."""

import csv
import io
import json
from pathlib import Path

import pytest
from made_store import (
    FULL,
    LETTER,
    LONELY,
    PLAIN,
    RUNNING,
    SASREC,
    SHARED,
    TAUGHT,
    TRIAL,
    age,
    contents,
    fill,
    leave_behind,
    put,
    recommender,
)

from bbqrec.cli import main
from bbqrec.files import Files
from bbqrec.pruning import leftovers, older_than, remove
from bbqrec.run_registry import Registry
from bbqrec.store import Store


@pytest.fixture
def url(tmp_path) -> str:
    store = Store(tmp_path / "store")
    fill(store)
    return store.url


@pytest.fixture
def runs(capsys):
    """What `bbqrec runs` prints; `remarks` on stderr are checked if given."""

    def call(*words: str, remarks: str = "") -> str:
        main(["runs", *words])
        said = capsys.readouterr()
        assert said.err == remarks
        return said.out

    return call


@pytest.fixture
def refused(capsys):
    """The one line on stderr of bad input."""

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["runs", *words])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
        return said

    return call


def by_key(printed: str) -> dict[str, dict]:
    return {line["key"]: line for line in json.loads(printed)}


def test_list_knows_every_run_its_method_scores_and_state(url, runs):
    found = by_key(runs("list", "--store", url, "--json"))
    assert len(found) == 9
    assert found[FULL] | {"modified": None} == {
        "key": FULL, "kind": "recommender", "method": "bbqrec", "dataset": "toys", "seed": 0, "setting": None,
        "valid": pytest.approx(0.4196, abs=1e-4), "test": pytest.approx(0.4196, abs=1e-4), "seconds": 100.0,
        "finished": "2026-01-02T03:04", "commit": "1234567890", "dirty": False, "status": "finished", "epoch": 7,
        "modified": None, "damage": None,
    }  # fmt: skip
    assert found[SHARED]["method"] == "bbqrec, bbqrec/s, bbqrec/e" and found[SHARED]["seconds"] == 30.0
    assert (found[SHARED]["dataset"], found[SHARED]["seed"]) == ("toys", 0)  # its own row does not say
    assert (found[RUNNING]["status"], found[RUNNING]["epoch"]) == ("in progress", 3)
    assert (found[RUNNING]["method"], found[RUNNING]["seed"], found[RUNNING]["test"]) == ("bbqrec/e", 1, None)
    assert found[SASREC]["method"] == "recommender/sasrec", "no study shows it as a method"
    assert (found[TRIAL]["kind"], found[TRIAL]["valid"], found[TRIAL]["test"]) == ("trial", 0.5, None)
    assert found[LONELY]["method"] is found[LONELY]["dataset"] is None
    table = runs("list", "--store", url)
    line = next(line for line in table.splitlines() if FULL in line)
    assert "0.4196" in line and "1234567" in line and "12345678" not in line
    assert "in progress, epoch 3" in table and all(key in table for key in found)


def test_seeds_rise_as_numbers(tmp_path, runs):
    store = Store(tmp_path / "store")
    for key, seed in (("ab01", 10), ("ab02", 2)):
        put(store, "recommender", key, recommender(key, None, {}, 1.0) | {"seed": seed})
    assert [line["seed"] for line in json.loads(runs("list", "--store", store.url, "--json"))] == [2, 10]


def test_list_says_what_a_study_varied_for_a_run(url, runs):
    assert "setting" not in runs("list", "--store", url), "a column only where something was varied"
    settings = ("quantizer.levels=4 recommender.dropout=0.3", "quantizer.levels=4 recommender.dropout=0.1", None)
    cells = [
        {"method": "bbqrec", "dataset": "toys", "seed": 0, "setting": setting, "run_key": key, "quantizer_key": SHARED}
        for key, setting in zip((FULL, PLAIN, FULL), settings, strict=True)
    ]
    Files(url).write("study/grid.json", json.dumps({"key": "grid", "cells": cells}).encode())
    found = by_key(runs("list", "--store", url, "--json"))
    assert (found[FULL]["setting"], found[PLAIN]["setting"]) == settings[:2]
    assert found[SHARED]["setting"] == "quantizer.levels=4", "not what concerns the recommenders alone"
    assert found[SASREC]["setting"] is None
    assert settings[0] in runs("list", "--store", url)


def test_list_filters_and_formats(url, runs, refused):
    store = ("--store", url)
    assert set(by_key(runs("list", *store, "--kind", "quantizer", "--json"))) == {SHARED, TAUGHT, LONELY}
    assert set(by_key(runs("list", *store, "--method", "bbqrec", "recommender/sasrec", "--json"))) == {
        FULL, SHARED, SASREC,
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(runs("list", *store, "--dataset", "toys", "--csv"))))
    assert {row["key"] for row in rows} == {FULL, PLAIN, SASREC, LETTER, SHARED, TAUGHT, RUNNING, TRIAL}
    assert next(row for row in rows if row["key"] == LETTER)["seconds"] == "80.0"
    assert "no run of data set 'tois': it has runs of toys" in refused("list", *store, "--dataset", "tois")
    assert "no run of method 'tiger'" in refused("list", *store, "--method", "tiger")
    assert "two formats" in refused("list", *store, "--json", "--csv")


def test_show_says_everything_and_takes_prefixes(url, runs, refused):
    said = runs("show", "aa1", "--store", url)
    for line in (
        f"key          {FULL}",
        "recommender.similarity  true",
        "recommender_seconds  100",
        "ray       2.60.0",
    ):
        assert f"  {line}" in said, line
    assert f"  {SHARED} (quantizer toys bbqrec, bbqrec/s, bbqrec/e seed 0)" in said
    assert "  ablations-01234567 recommender toys bbqrec seed 0" in said
    found = json.loads(runs("show", FULL, "--store", url, "--json"))
    assert found["files"]["ranks_test.npy"] == 152 and found["costs"]["recommender_seconds"] == 100.0
    others = found["shares its quantizer with"]
    assert [line.split()[0] for line in others] == [PLAIN, f"{RUNNING}", TRIAL] and "in progress" in others[1]
    found = json.loads(runs("show", LETTER, "--store", url, "--json"))
    assert found["teacher"] == [f"{SASREC} (recommender toys recommender/sasrec seed 0)"]
    found = json.loads(runs("show", SHARED, "--store", url, "--json"))
    assert [line.split()[0] for line in found["read by"]] == [FULL, PLAIN, RUNNING, TRIAL]
    assert found["config"] == {"quantizer": {"levels": 3, "width": 10}}
    assert f"{FULL}, {PLAIN}" in refused("show", "aa", "--store", url)
    assert "no run 'zz': known are " in refused("show", "zz", "--store", url)
    assert "nowhere does not exist" in refused("show", "aa1", "--store", f"{url}/nowhere")


def test_a_trial_with_the_key_of_a_run_needs_its_kind(url, runs):
    row = Registry(url).find(FULL).row
    put(Store(url), "trial", FULL, dict(row) | {"scores": {}})
    assert json.loads(runs("show", FULL, "--store", url, "--json"))["run"]["kind"] == "recommender"
    assert json.loads(runs("show", FULL, "--kind", "trial", "--store", url, "--json"))["run"]["kind"] == "trial"


def test_diff_of_runs_names_fields_scores_and_users(url, runs, refused):
    said = runs("diff", FULL, PLAIN, "--store", url).splitlines()
    assert said[0] == f"the same data set (toys), the same seed (0), the same quantizer ({SHARED})"
    assert said[1] == "1 field of the config of recommender: recommender.similarity True -> False"
    # NDCG of the ranks 1 2 3 - 5 - and 1 3 2 - - 4.
    ndcg = [[1, 0.63093, 0.5, 0, 0.38685, 0], [1, 0.5, 0.63093, 0, 0, 0.43068]]
    means = [sum(values) / 6 for values in ndcg]
    assert said[2] == f"test NDCG@10 {means[0]:.4f} -> {means[1]:.4f} ({means[1] - means[0]:+.4f})"
    assert said[3].startswith(f"user by user (6): {means[1] - means[0]:+.4f}, 95 % interval -0.2")
    assert said[3].endswith("; 2 gain, 2 lose, 2 stay")
    found = json.loads(runs("diff", FULL, PLAIN, "--store", url, "--json"))
    field = {"field": "recommender.similarity", "one": True, "other": False, "change": None}
    assert found["config"] == [field] and found["provenance"] == []
    assert found["costs"] == [{"field": "recommender_seconds", "one": 100.0, "other": 90.0, "change": -10.0}]
    said = runs("diff", SHARED, TAUGHT, "--store", url)
    assert "1 field of the config of quantizer: quantizer.width 10 -> 11" in said
    assert f"{FULL} a recommender: name two runs" in refused("diff", SHARED, FULL, "--store", url)
    assert "is in progress: there is nothing to compare" in refused("diff", FULL, RUNNING, "--store", url)


def test_a_run_compared_with_itself(url, runs):
    said = runs("diff", FULL, FULL, "--store", url).splitlines()
    assert said[1] == "no field of the config differs" and said[3].endswith("; 0 gain, 0 lose, 6 stay")
    assert len(said) == 4


def spoil(url: str, kind: str, key: str, name: str, data: bytes | None) -> None:
    path = Path(url, kind, key, name)
    path.unlink() if data is None else path.write_bytes(data)


DAMAGE = {
    "manifest cut": ("manifest.json", b'{"attempt"', "manifest.json is unreadable"),
    "manifest of another shape": ("manifest.json", b'{"attempt": 3, "files": []}', "manifest.json is unreadable"),
    "no row": ("good/row.json", None, "row.json is missing"),
    "row cut": ("good/row.json", b"{", "row.json has 1 bytes"),
    "ranks cut": ("good/ranks_test.npy", b"", "ranks_test.npy has 0 bytes"),
    "ranks gone": ("good/ranks_test.npy", None, "ranks_test.npy is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_listed_as_such_and_nothing_is_touched(url, runs, refused, damage):
    name, data, said = DAMAGE[damage]
    spoil(url, "recommender", FULL, name, data)
    before = contents(url)
    found = by_key(runs("list", "--store", url, "--json"))
    assert (found[FULL]["status"], found[FULL]["test"]) == ("damaged", None) and said in found[FULL]["damage"]
    assert found[PLAIN]["status"] == "finished" and len(found) == 9
    assert "damaged: " in runs("list", "--store", url) and said in runs("show", FULL, "--store", url)
    assert "is damaged" in refused("diff", FULL, PLAIN, "--store", url)
    assert "nothing to remove" in runs("prune", "--store", url, "--older-than", "0", "--yes")
    assert contents(url) == before


def test_what_was_unpublished_is_incomplete_and_a_leftover(url, runs):
    """As the store does when it finds a damaged file; the next run publishes another attempt."""
    spoil(url, "recommender", FULL, "manifest.json", None)
    line = by_key(runs("list", "--store", url, "--json"))[FULL]
    assert (line["status"], line["method"], line["test"]) == ("incomplete", "bbqrec", None)
    age(url)
    found = json.loads(runs("prune", "--store", url, "--json"))
    assert [line["name"] for line in found] == [f"recommender/{FULL}/good"] and not found[0]["removed"]


def test_a_changed_byte_of_a_row_is_damage(url, runs):
    path = Path(url, "recommender", FULL, "good", "row.json")
    path.write_text(path.read_text().replace("toys", "boys"))
    assert "differs from its checksum" in by_key(runs("list", "--store", url, "--json"))[FULL]["damage"]


@pytest.mark.parametrize("row", [3, [], {}, None])
def test_a_row_that_is_no_object_is_damage(url, runs, row):
    put(Store(url), "recommender", "ab00", row)
    assert by_key(runs("list", "--store", url, "--json"))["ab00"]["damage"] == "row.json is not a JSON object"


def test_rows_and_files_of_other_shapes_break_nothing(url, runs):
    """As other versions, or other programs, might write them."""
    odd = {"scores": 3, "costs": [1], "provenance": "x", "config": {"kinds": 1}, "seed": "a", "quantizer_key": 7}
    put(Store(url), "recommender", "ab00", odd)
    put(Store(url), "quantizer", "ab01", {"config": [], "costs": {"seconds": "long"}}, config_json=b"[")
    Path(url, "recommender", RUNNING, "progress", "latest.json").write_text("[1")
    Path(url, "study", "cut.json").write_text("{")
    Path(url, "study", "odd.json").write_text('{"cells": [1, {}, {"method": 2, "run_key": []}]}')
    Path(url, "quantizer", "stray").write_text("x")
    remark = "note: study/cut.json is no study file: not read\n"
    found = by_key(runs("list", "--store", url, "--json", remarks=remark))
    assert found["ab00"]["status"] == found["ab01"]["status"] == "finished" and found["ab01"]["seconds"] is None
    assert (found[RUNNING]["status"], found[RUNNING]["epoch"]) == ("in progress", None)
    runs("list", "--store", url, remarks=remark)
    for key in ("ab00", "ab01", RUNNING):
        assert key in runs("show", key, "--store", url, remarks=remark)
    assert "0 leftovers" not in runs("diff", "ab00", FULL, "--store", url, remarks=remark)


def test_prune_lists_first_removes_with_yes_and_leaves_every_run(url, runs):
    before = contents(url)
    expected = leave_behind(Store(url))
    full = contents(url)
    prune = ("prune", "--store", url)
    assert runs(*prune) == "nothing to remove\n", "all of it is young"
    age(url)
    printed = runs(*prune)
    assert all(name in printed for name in expected)
    assert printed.endswith("8 leftovers, 64 bytes: --yes removes them\n") and contents(url) == full
    assert {line["name"] for line in json.loads(runs(*prune, "--json"))} == expected
    assert runs(*prune, "--older-than", "4", "--yes") == "nothing to remove\n" and contents(url) == full
    assert runs(*prune, "--yes").endswith("removed 8 leftovers, 64 bytes\n")
    assert contents(url) == before
    assert Store(url).load_progress("recommender", RUNNING).epoch == 3


def test_prune_spares_what_is_at_work(url, runs):
    """One young file makes its folder young: an attempt that is being uploaded, a run that writes checkpoints still."""
    store = Store(url)
    leave_behind(store)
    age(url)
    store._files.write(f"quantizer/{SHARED}/lost/vectors.npy", b"now")
    store._files.write(f"recommender/{FULL}/progress/good-3/state", b"now")
    gone = {line["name"] for line in json.loads(runs("prune", "--store", url, "--yes", "--json"))}
    assert not gone & {f"quantizer/{SHARED}/lost", f"recommender/{FULL}/progress"} and len(gone) == 6
    assert {f"quantizer/{SHARED}/lost/codes.npy", f"recommender/{FULL}/progress/good-2/state"} <= contents(url)


def test_what_came_into_use_between_listing_and_removal_stays(url):
    store, before = Store(url), older_than(1)
    leave_behind(store)
    age(url)
    found = {leftover.name: leftover for leftover in leftovers(Registry(url), before)[0]}
    store._files.write("dataset/abc/manifest.json", b'{"attempt": "driver", "files": {}}')
    store._files.remove(f"recommender/{FULL}/manifest.json")  # it was damaged: its checkpoints count again
    store._files.write(f"recommender/{RUNNING}/cut/row.json", b"again")
    stays = {"dataset/abc/driver", f"recommender/{FULL}/progress", f"recommender/{RUNNING}/cut"}
    files = Files(url, writable=False)
    assert {name for name, leftover in found.items() if not remove(files, leftover, before)} == stays
    for name in stays:
        assert Path(url, name).exists()


def test_unused_takes_trials_and_quantizers_that_nothing_needs(url, runs):
    prune = ("prune", "--store", url, "--unused")
    assert runs(*prune) == "nothing to remove\n"
    age(url)
    found = {line["name"] for line in json.loads(runs(*prune, "--json"))}
    assert found == {f"trial/{TRIAL}", f"quantizer/{LONELY}"}
    runs(*prune, "--yes")
    assert Store(url).keys("trial") == [] and Store(url).keys("quantizer") == sorted([SHARED, TAUGHT])
    assert not Path(url, "quantizer", LONELY, "good").exists()


def test_a_quantizer_that_a_study_shows_stays(url, runs):
    """Its recommender may have failed, or not have begun."""
    cell = {"method": "tiger", "dataset": "toys", "seed": 0, "run_key": "ab00", "quantizer_key": LONELY}
    Store(url).write_json("study/mine.json", {"name": "mine", "cells": [cell]})
    age(url)
    found = json.loads(runs("prune", "--store", url, "--unused", "--json"))
    assert {line["name"] for line in found} == {f"trial/{TRIAL}"}


def test_quantizers_stay_while_a_run_does_not_say_which_it_will_read(url, runs):
    Store(url).save_progress("recommender", "ab00", "a", 1, {"state": b"s"})  # `bbqrec train`: in no study
    age(url)
    remark = "note: quantizers stay: it is not known which of them ab00 will read\n"
    found = json.loads(runs("prune", "--store", url, "--unused", "--json", remarks=remark))
    assert {line["name"] for line in found} == {f"trial/{TRIAL}"}


def test_a_trial_that_stays_keeps_its_quantizer(url, runs):
    row = {"quantizer_key": LONELY, "selected_by": {}}
    age(url)
    put(Store(url), "trial", "ab00", row)
    found = json.loads(runs("prune", "--store", url, "--unused", "--json"))
    assert {line["name"] for line in found} == {f"trial/{TRIAL}"}


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_an_age_that_is_none_is_refused(url, refused, days):
    assert "is no number of days" in refused("prune", "--store", url, f"--older-than={days}")


def test_all_of_it_on_s3(s3_url, runs):
    store = Store(s3_url)
    fill(store)
    assert len(by_key(runs("list", "--store", s3_url, "--json"))) == 9
    assert f"  key          {FULL}" in runs("show", "aa1", "--store", s3_url)
    assert "2 gain, 2 lose, 2 stay" in runs("diff", FULL, PLAIN, "--store", s3_url)
    expected = leave_behind(store)
    assert runs("prune", "--store", s3_url, "--yes") == "nothing to remove\n", "all of it is young"
    found = json.loads(runs("prune", "--store", s3_url, "--older-than", "0", "--unused", "--yes", "--json"))
    assert {line["name"] for line in found} == expected | {f"trial/{TRIAL}", f"quantizer/{LONELY}"}
    assert all(line["removed"] for line in found)
    assert runs("prune", "--store", s3_url, "--older-than", "0", "--unused") == "nothing to remove\n"
    assert sorted(by_key(runs("list", "--store", s3_url, "--json"))) == sorted(
        [FULL, PLAIN, SASREC, LETTER, SHARED, TAUGHT, RUNNING]
    )
    store._files.write(f"recommender/{FULL}/good/row.json", b"{}")
    assert by_key(runs("list", "--store", s3_url, "--json"))[FULL]["status"] == "damaged"


def test_an_empty_store(tmp_path, s3_url, runs):
    for url in (str(tmp_path), s3_url):
        assert runs("list", "--store", url) == f"no runs in store {url}\n"
        assert runs("prune", "--store", url) == "nothing to remove\n"
