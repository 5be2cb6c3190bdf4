import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from bbqrec.errors import InputError
from bbqrec.files import Files
from bbqrec.store import Store

KIND, KEY = "quantizer", "c0ffee00c0ffee00"


@pytest.fixture(params=["local", "memory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "s3":
        return Store(request.getfixturevalue("s3_url"))
    return Store(tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What a run leaves: two files and a nested one, all of different sizes."""
    folder = tmp_path / "made"
    (folder / "curves").mkdir(parents=True)
    (folder / "codes.npy").write_bytes(bytes(range(256)) * 9)
    (folder / "row.json").write_text('{"collisions": 3}')
    (folder / "curves" / "loss.txt").write_text("1.5\n0.5\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(store: Store, name: str) -> list[str]:
    return store._files.folders(name)


def python(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_what_is_published_comes_back(any_store: Store, made: Path) -> None:
    assert (any_store.has(KIND, KEY), any_store.get(KIND, KEY), any_store.keys(KIND)) == (False, None, [])
    any_store.publish(KIND, KEY, made, "a1")
    folder = any_store.get(KIND, KEY)
    assert folder is not None and contents(folder) == contents(made)
    assert any_store.has(KIND, KEY) and any_store.keys(KIND) == [KEY]
    assert any_store.keys("recommender") == []
    assert any_store.read_json(KIND, KEY, "row.json") == {"collisions": 3}
    assert any_store.read_bytes(KIND, KEY, "curves/loss.txt") == b"1.5\n0.5\n"
    manifest = json.loads(any_store._files.read(f"{KIND}/{KEY}/manifest.json") or b"")
    assert manifest["attempt"] == "a1" and manifest["files"]["codes.npy"]["bytes"] == 2304


def test_the_first_attempt_wins_and_the_second_leaves_nothing(any_store: Store, made: Path) -> None:
    any_store.publish(KIND, KEY, made, "a1")
    (made / "row.json").write_text('{"collisions": 4}')
    any_store.publish(KIND, KEY, made, "a2")
    any_store.publish(KIND, KEY, made, "a1")
    assert any_store.read_json(KIND, KEY, "row.json") == {"collisions": 3}
    assert entries(any_store, f"{KIND}/{KEY}") == ["a1"]


@pytest.mark.parametrize("mine", ["a2", "a1"])
def test_an_attempt_published_during_the_upload_wins(any_store: Store, made: Path, mine: str, monkeypatch) -> None:
    upload, other = any_store._files.upload, Store(any_store.url)

    def late(path: Path, name: str) -> None:
        upload(path, name)
        monkeypatch.undo()  # once
        other.publish(KIND, KEY, made, "a1")

    monkeypatch.setattr(any_store._files, "upload", late)
    any_store.publish(KIND, KEY, made, mine)
    assert entries(any_store, f"{KIND}/{KEY}") == ["a1"]
    folder = any_store.get(KIND, KEY)
    assert folder is not None and contents(folder) == contents(made)


def test_files_without_a_manifest_do_not_exist(any_store: Store) -> None:
    any_store._files.write(f"{KIND}/{KEY}/a1/codes.npy", b"123")
    assert not any_store.has(KIND, KEY) and any_store.get(KIND, KEY) is None and any_store.keys(KIND) == []
    with pytest.raises(InputError, match=rf"no codes\.npy of {KIND} {KEY}"):
        any_store.read_bytes(KIND, KEY, "codes.npy")


@pytest.mark.parametrize("damage", ["flipped", "short", "gone", "manifest"])
@pytest.mark.parametrize("through", ["get", "read"])
def test_damage_is_named_and_the_artefact_computed_again(any_store: Store, made: Path, damage, through, caplog) -> None:
    any_store.publish(KIND, KEY, made, "a1")
    name = f"{KIND}/{KEY}/a1/codes.npy"
    whole = any_store._files.read(name) or b""
    match damage:
        case "flipped":
            any_store._files.write(name, whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
        case "short":
            any_store._files.write(name, whole[:-1])
        case "gone":
            any_store._files.remove(name)
        case "manifest":
            name = f"{KIND}/{KEY}/manifest.json"
            any_store._files.write(name, b'{"attempt": "a1", "fi')
    with caplog.at_level(logging.WARNING, "bbqrec.store"):
        if through == "get":
            assert any_store.get(KIND, KEY) is None
        else:
            with pytest.raises(InputError, match=r"codes\.npy .*: run the command"):
                any_store.read_bytes(KIND, KEY, "codes.npy")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "damaged artefact" in caplog.text and name in caplog.text
    assert not any_store.has(KIND, KEY) and any_store.keys(KIND) == []
    any_store.publish(KIND, KEY, made, "a2")
    folder = any_store.get(KIND, KEY)
    assert folder is not None and contents(folder) == contents(made)


def test_damage_found_late_does_not_unpublish_the_successor(store: Store, made: Path, monkeypatch) -> None:
    """The manifest changes between the read of a damaged file and its un-publishing."""
    store.publish(KIND, KEY, made, "a1")
    stale = store._manifest(KIND, KEY)
    store._files.remove(f"{KIND}/{KEY}/manifest.json")
    store.publish(KIND, KEY, made, "a2")
    store._files.write(f"{KIND}/{KEY}/a1/codes.npy", b"")
    read, manifests = store._manifest, iter([stale])
    monkeypatch.setattr(store, "_manifest", lambda kind, key: next(manifests, None) or read(kind, key))
    assert store.get(KIND, KEY) is None
    assert store.get(KIND, KEY) == Path(store.url, KIND, KEY, "a2")


def test_a_remote_artefact_is_copied_once(s3_url: str, made: Path, tmp_path: Path, monkeypatch) -> None:
    store = Store(s3_url)
    store.publish(KIND, KEY, made, "a1")
    folder = store.get(KIND, KEY, tmp_path / "here")
    assert folder == tmp_path / "here" / KIND / KEY / "a1"
    fetched = []
    read = store._files.read
    monkeypatch.setattr(store._files, "read", lambda name: fetched.append(name.rsplit("/", 1)[1]) or read(name))
    assert store.get(KIND, KEY, tmp_path / "here") == folder
    assert fetched == ["manifest.json"]
    (folder / "codes.npy").write_bytes(b"damaged copy")
    assert store.get(KIND, KEY, tmp_path / "here") == folder and contents(folder) == contents(made)
    assert fetched == ["manifest.json", "manifest.json", "codes.npy"]


def test_progress_keeps_the_newest_two(any_store: Store) -> None:
    assert any_store.load_progress("recommender", KEY) is None
    for epoch, attempt in [(0, "a1"), (1, "a1"), (2, "a2"), (3, "a2")]:
        any_store.save_progress("recommender", KEY, attempt, epoch, {"model": b"m%d" % epoch, "state.json": b"{}"})
        progress = any_store.load_progress("recommender", KEY)
        assert progress is not None and (progress.epoch, progress.files["model"]) == (epoch, b"m%d" % epoch)
    assert entries(any_store, f"recommender/{KEY}/progress") == ["a2-2", "a2-3"]
    assert not any_store.has("recommender", KEY) and any_store.keys("recommender") == []
    any_store.clear_progress("recommender", KEY)
    any_store.clear_progress("recommender", KEY)
    assert any_store.load_progress("recommender", KEY) is None and entries(any_store, f"recommender/{KEY}") == []


def test_damaged_progress_gives_way_to_older_progress(any_store: Store, caplog) -> None:
    for epoch in (4, 5):
        any_store.save_progress(KIND, KEY, "a1", epoch, {"model": b"m%d" % epoch, "optimiser": b"o"})
    any_store._files.write(f"{KIND}/{KEY}/progress/a1-5/model", b"m4")
    progress = any_store.load_progress(KIND, KEY)
    assert progress is not None and (progress.epoch, progress.files["model"]) == (4, b"m4")
    assert f"{KIND}/{KEY}/progress/a1-5/model" in caplog.text
    any_store.save_progress(KIND, KEY, "a2", 5, {"model": b"again"})  # what is whole stays in reserve
    assert entries(any_store, f"{KIND}/{KEY}/progress") == ["a1-4", "a2-5"]
    any_store._files.remove(f"{KIND}/{KEY}/progress/a2-5")
    progress = any_store.load_progress(KIND, KEY)
    assert progress is not None and progress.epoch == 4
    any_store._files.remove(f"{KIND}/{KEY}/progress/a1-4/optimiser")
    assert any_store.load_progress(KIND, KEY) is None
    any_store._files.write(f"{KIND}/{KEY}/progress/latest.json", b'{"checkpoints": [')
    assert any_store.load_progress(KIND, KEY) is None
    any_store.save_progress(KIND, KEY, "a3", 0, {"model": b"m"})
    progress = any_store.load_progress(KIND, KEY)
    assert progress is not None and progress.epoch == 0


def test_an_attempt_that_lags_behind_does_not_set_its_successor_back(store: Store) -> None:
    for epoch in (6, 7):
        store.save_progress(KIND, KEY, "new", epoch, {"model": b"new"})
    store.save_progress(KIND, KEY, "old", 3, {"model": b"old"})
    progress = store.load_progress(KIND, KEY)
    assert progress is not None and (progress.epoch, progress.files["model"]) == (7, b"new")
    assert entries(store, f"{KIND}/{KEY}/progress") == ["new-6", "new-7"]


def test_json_files_of_studies(any_store: Store) -> None:
    assert any_store.load_json("study/ablations.json") is None
    for cells in ([1], [1, 2]):
        any_store.write_json("study/ablations.json", {"cells": cells})
        assert any_store.load_json("study/ablations.json") == {"cells": cells}
    any_store.write_json("study/ablations-1.json", {})
    any_store._files.write("study/deep/x.json", b"{}")
    assert any_store.json_names("study") == ["ablations", "ablations-1"] and any_store.json_names("none") == []
    any_store._files.write("study/ablations.json", b'{"cells": [1')
    with pytest.raises(InputError, match=r"study/ablations\.json is not JSON .*: remove it"):
        any_store.load_json("study/ablations.json")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a b", ".hidden"])
def test_names_cannot_leave_their_place(store: Store, name: str, tmp_path: Path) -> None:
    for call in (
        lambda: store.publish(KIND, name, tmp_path, "a1"),
        lambda: store.publish(KIND, KEY, tmp_path, name),
        lambda: store.get(name, KEY),
        lambda: store.keys(name),
        lambda: store.save_progress(KIND, KEY, "a1", 1, {name: b""}),
        lambda: store.clear_progress(KIND, name),
        lambda: store.write_json(f"study/{name}/x.json", 1) if name != "a/b" else store.get(KIND, name),
    ):
        with pytest.raises(ValueError, match="must be one path component"):
            call()


def test_a_relative_path_stays_where_it_was(tmp_path: Path, made: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("relative/store")
    assert store.is_local and store.url == str(tmp_path / "relative/store")
    monkeypatch.chdir("/")
    store.publish(KIND, KEY, made, "a1")
    assert Store(f"file://{tmp_path}/relative/store").keys(KIND) == [KEY]


def test_a_store_that_cannot_be_used_says_so(tmp_path: Path, s3_url: str, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="store nfs-v9://x: Protocol not known: nfs-v9: use a path or a URL"):
        Store("nfs-v9://x")
    with pytest.raises(InputError, match=r"Not a directory: .*/file.*: check that it exists and can be written"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(InputError, match=r"store s3://no-such-bucket/runs: .*bucket does not exist"):
        Store("s3://no-such-bucket/runs")
    files = Files(s3_url)
    for error in (PermissionError("Access Denied"), ValueError("Unable to locate credentials")):
        monkeypatch.setattr(files._system, "pipe_file", Mock(side_effect=error))
        with pytest.raises(InputError, match=f"{error}: give this machine credentials for it: a role"):
            files.write("name", b"")
    without = python("import sys; sys.modules['s3fs'] = None; import bbqrec.store; bbqrec.store.Store('s3://b/runs')")
    assert "InputError: store s3://b/runs: Install s3fs" in without.communicate()[1] and without.returncode == 1


def test_a_full_disk_publishes_nothing_and_leaves_nothing(store: Store, made: Path, monkeypatch) -> None:
    attempt = Path(store.url, KIND, KEY, "a1")
    attempt.mkdir(parents=True)
    (attempt / "row.json").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"No space left on device.*: free some space"):
        store.publish(KIND, KEY, made, "a1")
    assert not attempt.exists() and not store.has(KIND, KEY)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.save_progress(KIND, KEY, "a1", 1, {"model": b"one"})
    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: store.save_progress(KIND, KEY, "a1", 2, {"model": b"two"}),
        lambda: store.write_json("study/x.json", 1),
        lambda: store.publish(KIND, KEY, made, "a1"),
        lambda: Store(Path(store.url).parent / "other"),
    ):
        with pytest.raises(InputError, match=r"No space left on device.*: free some space"):
            write()
    assert not attempt.exists() and not store.has(KIND, KEY) and store.load_json("study/x.json") is None
    progress = store.load_progress(KIND, KEY)
    assert progress is not None and (progress.epoch, progress.files["model"]) == (1, b"one")
    assert [p.name for p in Path(store.url).rglob(".*")] == []


RACE = """
import sys, time
from pathlib import Path
from bbqrec.store import Store
url, made, attempt, rounds, start = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
store = Store(url)
for round in range(rounds):
    time.sleep(max(0.0, start + 0.05 * round - time.time()))
    store.publish("quantizer", f"key{round}", Path(made), attempt)
    folder = store.get("quantizer", f"key{round}")
    assert folder is not None and (folder / "codes.npy").read_bytes() == Path(made, "codes.npy").read_bytes()
"""


def test_two_processes_may_publish_the_same_key_at_once(tmp_path: Path, made: Path, s3_url: str) -> None:
    for url, rounds in ((tmp_path / "store", 30), (s3_url, 10)):
        store = Store(url)
        start = time.time() + 2.5
        racers = [python(RACE, url, made, attempt, str(rounds), str(start)) for attempt in ("a1", "a2")]
        outputs = [(racer.communicate(timeout=240), racer.returncode) for racer in racers]
        assert outputs == [(("", ""), 0)] * 2
        assert store.keys(KIND) == sorted(f"key{r}" for r in range(rounds))
        for key in store.keys(KIND):
            folder = store.get(KIND, key)
            assert folder is not None and contents(folder) == contents(made)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    script = "import sys; from bbqrec.store import Store; s = Store(sys.argv[1])\n"
    script += "for n in range(300): s.write_json('study/x.json', {'n': n, 'pad': 'x' * (1 + n * 997 % 90000)})"
    store = Store(tmp_path)
    store.write_json("study/x.json", {"n": 0})
    writer, seen = python(script, tmp_path), set()
    while writer.poll() is None:
        seen.add(store.load_json("study/x.json")["n"])
    assert (writer.communicate(), writer.returncode) == (("", ""), 0)
    assert len(seen) > 5


def test_a_publisher_killed_half_way_has_published_nothing(tmp_path: Path, made: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for n in range(3000):
        (many / f"{n}.bin").write_bytes(b"x" * 2000)
    script = "import sys; from bbqrec.store import Store; Store(sys.argv[1]).publish(*sys.argv[2:])"
    publisher = python(script, tmp_path / "store", KIND, KEY, many, "a1")
    attempt = tmp_path / "store" / KIND / KEY / "a1"
    while not attempt.is_dir() or len(list(attempt.iterdir())) < 100:
        assert publisher.poll() is None, publisher.communicate()
        time.sleep(0.005)
    publisher.send_signal(signal.SIGKILL)
    publisher.communicate()
    assert len(list(attempt.iterdir())) < 3000
    store = Store(tmp_path / "store")
    assert not store.has(KIND, KEY) and store.get(KIND, KEY) is None and store.keys(KIND) == []
    store.publish(KIND, KEY, made, "a2")
    folder = store.get(KIND, KEY)
    assert folder is not None and contents(folder) == contents(made)


def test_the_store_needs_no_torch() -> None:
    check = python("import sys, bbqrec.store; sys.exit('torch' in sys.modules or 'ray' in sys.modules)")
    assert (check.communicate(), check.returncode) == (("", ""), 0)


def test_a_store_that_is_only_read_is_neither_made_nor_written(tmp_path, made, caplog):
    reader = Store(tmp_path / "store", writable=False)
    assert reader.keys(KIND) == [] and reader.get(KIND, KEY) is None and not (tmp_path / "store").exists()
    Store(tmp_path / "store").publish(KIND, KEY, made, "a1")
    (tmp_path / "store" / KIND / KEY / "a1" / "row.json").write_text("{}")
    before = contents(tmp_path / "store")

    reader = Store(tmp_path / "store", writable=False)
    with pytest.raises(InputError, match=r"row\.json is damaged"):
        reader.read_bytes(KIND, KEY, "row.json")
    assert "damaged artefact" in caplog.text and contents(tmp_path / "store") == before
    (tmp_path / "store" / KIND / KEY / "manifest.json").write_text("{")
    assert reader.get(KIND, KEY) is None and (tmp_path / "store" / KIND / KEY / "manifest.json").exists()
