"""Downloads against a server on this machine: whole, broken off and resumed, changed, refused."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bbqrec.datasets.download import CHUNK, PLACES, download
from bbqrec.errors import InputError

FILES = {
    "/site/" + PLACES[kind].format("Beauty"): np.random.default_rng(size).bytes(size)
    for kind, size in (("reviews", 700), ("meta", 5 * CHUNK + 31), ("images", 3 * CHUNK))
}
REVIEWS, META, IMAGES = FILES
NAMES = [path.rpartition("/")[2] for path in FILES]


class Server(ThreadingHTTPServer):
    """Serves `files`; each entry of `breaks` ends one answer after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.etag = '"first"'
        self.ranges = True
        self.heeds_if_range = True
        self.announces_length = True
        self.breaks: list[int] = []
        self.statuses: list[int] = []
        self.requests: list[tuple[str, str | None]] = []

    @property
    def site(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/site"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        whole, start = server.files[self.path], 0
        assert self.headers["Accept-Encoding"] == "identity"
        same = not server.heeds_if_range or self.headers.get("If-Range") in (None, server.etag)
        if wanted and server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start and start >= len(whole):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(whole)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        if server.announces_length:
            self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("Content-Encoding", "x-gzip")  # as web servers say of *.gz; the file is to stay as it is
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(whole[start:][: server.breaks.pop(0) if server.breaks else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)


def fetch(server: Server, folder, **options):
    return download("Beauty", folder, site=server.site, **{"pauses": (), **options})


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_fetches_every_file_once_and_records_its_hash(server, tmp_path):
    folder = tmp_path / "new" / "raw"
    paths = fetch(server, folder)
    assert [path.name for path in paths] == NAMES
    assert [path.read_bytes() for path in paths] == list(FILES.values())
    recorded = dict(line.split() for line in (folder / "registry.txt").read_text().splitlines())
    assert recorded == {name: sha(data) for name, data in zip(NAMES, FILES.values(), strict=True)}
    assert sorted(p.name for p in folder.iterdir()) == sorted([*NAMES, "registry.txt"])
    assert fetch(server, folder) == paths
    assert server.requests == [(path, None) for path in FILES]


def test_goes_on_where_it_stopped_in_a_later_command(server, tmp_path):
    server.breaks = [3 * CHUNK + 5]
    with pytest.raises(InputError, match=r"cannot fetch http.*meta_Beauty.*run the same command again"):
        fetch(server, tmp_path, kinds=("meta",))
    part = tmp_path / "meta_Beauty.json.gz.part"
    assert not (tmp_path / "meta_Beauty.json.gz").exists() and not (tmp_path / "registry.txt").exists()
    have = part.stat().st_size
    assert 2 * CHUNK <= have <= 3 * CHUNK + 5
    (path,) = fetch(server, tmp_path, kinds=("meta",))
    assert path.read_bytes() == FILES[META]
    assert server.requests == [(META, None), (META, f"bytes={have}-")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meta_Beauty.json.gz", "registry.txt"]


def test_goes_on_by_itself_after_a_pause_and_after_an_overload(server, tmp_path):
    server.breaks, server.statuses = [2 * CHUNK, CHUNK], [503]
    (path,) = fetch(server, tmp_path, kinds=("meta",), pauses=(0.0, 0.01, 0.0))
    assert path.read_bytes() == FILES[META]
    assert [wanted for _, wanted in server.requests][:2] == [None, None]
    assert all(wanted for _, wanted in server.requests[2:]) and len(server.requests) == 4


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "meta_Beauty.json.gz.part").write_bytes(FILES[META])
    (tmp_path / "meta_Beauty.json.gz.part.version").write_text(server.etag)
    (path,) = fetch(server, tmp_path, kinds=("meta",))
    assert path.read_bytes() == FILES[META]
    assert server.requests == [(META, f"bytes={len(FILES[META])}-")]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "meta_Beauty.json.gz.part").write_bytes(FILES[META] + b"more")
    (tmp_path / "meta_Beauty.json.gz.part.version").write_text(server.etag)
    (path,) = fetch(server, tmp_path, kinds=("meta",), pauses=(0.0,))
    assert path.read_bytes() == FILES[META]


@pytest.mark.parametrize("change", ["the server ignores ranges", "the file has changed", "no version is known"])
def test_starts_over_where_a_part_cannot_be_trusted(server, tmp_path, change):
    if change == "no version is known":
        server.etag = ""
    server.breaks = [3 * CHUNK]
    with pytest.raises(InputError):
        fetch(server, tmp_path, kinds=("meta",))
    if change == "the server ignores ranges":
        server.ranges = False
    if change == "the file has changed":
        server.etag, server.files[META] = '"second"', np.random.default_rng(9).bytes(4 * CHUNK)
    (path,) = fetch(server, tmp_path, kinds=("meta",))
    assert path.read_bytes() == server.files[META]
    assert (server.requests[-1][1] is None) == (change == "no version is known")


def test_the_rest_of_another_version_is_not_appended(server, tmp_path):
    server.breaks, server.heeds_if_range = [3 * CHUNK], False
    with pytest.raises(InputError):
        fetch(server, tmp_path, kinds=("meta",))
    server.etag, server.files[META] = '"second"', np.random.default_rng(9).bytes(4 * CHUNK)
    (path,) = fetch(server, tmp_path, kinds=("meta",), pauses=(0.0,))
    assert path.read_bytes() == server.files[META]


def test_a_server_that_does_not_announce_the_length(server, tmp_path):
    server.announces_length = False
    assert [path.read_bytes() for path in fetch(server, tmp_path)] == list(FILES.values())


def test_another_hash_than_given_leaves_no_file(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(InputError, match=rf"(?s)meta_Beauty.*expected {wrong} but got {sha(FILES[META])}"):
        fetch(server, tmp_path, kinds=("meta",), sha256={"meta_Beauty.json.gz": wrong})
    assert list(tmp_path.iterdir()) == []
    (path,) = fetch(server, tmp_path, kinds=("meta",), sha256={"meta_Beauty.json.gz": sha(FILES[META]).upper()})
    assert path.read_bytes() == FILES[META]


def test_a_damaged_file_is_fetched_again_and_a_changed_one_refused(server, tmp_path):
    (path,) = fetch(server, tmp_path, kinds=("meta",))
    path.write_bytes(FILES[META][:-1] + b"?")
    fetch(server, tmp_path, kinds=("meta",))
    assert path.read_bytes() == FILES[META]
    path.unlink()
    server.files[META], server.etag = b"something else", '"second"'
    with pytest.raises(InputError, match=r"meta_Beauty.*but got.*registry\.txt"):
        fetch(server, tmp_path, kinds=("meta",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["registry.txt"]


def test_a_file_that_does_not_exist(server, tmp_path):
    del server.files[IMAGES]
    with pytest.raises(InputError, match=r"image_features_Beauty\.b does not exist: .*Toys_and_Games") as caught:
        fetch(server, tmp_path, pauses=(60.0,))
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*NAMES[:2], "registry.txt"])


def test_no_server_at_all(tmp_path):
    with pytest.raises(InputError, match=r"cannot fetch http:.*meta_Beauty.*again") as caught:
        download("Beauty", tmp_path, kinds=("meta",), site="http://127.0.0.1:9/", pauses=(0.0,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("category", "options", "message"),
    [
        ("../Beauty", {}, "no category"),
        ("Beauty", {"site": "snap.stanford.edu"}, "no web address"),
        ("Beauty", {"kinds": ()}, "no files to fetch"),
        ("Beauty", {"sha256": {"meta_Beauty.json.gz": "12ab"}}, "no SHA-256"),
        ("Beauty", {"sha256": {"meta_Toys.json.gz": "0" * 64}}, "no SHA-256"),
    ],
)
def test_wrong_arguments_touch_nothing(server, tmp_path, category, options, message):
    with pytest.raises(InputError, match=message):
        download(category, tmp_path / "raw", **{"site": server.site, "pauses": (), **options})
    assert server.requests == [] and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match="cannot write to"):
        fetch(server, tmp_path / "raw")


def test_a_damaged_registry_is_named(server, tmp_path):
    (tmp_path / "registry.txt").write_text("one two three four\n")
    with pytest.raises(InputError, match=r"cannot read .*registry\.txt"):
        fetch(server, tmp_path)
