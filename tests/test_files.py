"""What is tried again and what is not: stores that are out of reach for a while, processes in each other's way."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from bbqrec import files
from bbqrec.errors import InputError
from bbqrec.files import Files


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Time passes only in pauses, which are noted."""
    made: list[float] = []
    monkeypatch.setattr(files.time, "sleep", made.append)
    monkeypatch.setattr(files.time, "monotonic", lambda: 7.0 + sum(made))
    return made


@pytest.fixture
def remote(tmp_path) -> Files:
    return Files(f"memory://{tmp_path.name}")


class ReadTimeoutError(Exception):
    """Of a package of its own, derived from what its client calls HTTPClientError."""


class HTTPClientError(Exception):
    pass


class CutOff(HTTPClientError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "refused"),
        TimeoutError("slow"),
        CutOff("cut"),
        OSError(errno.EBUSY, "slow down"),
        OSError(errno.EREMOTEIO, "we encountered an internal error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_remote_store_out_of_reach_is_tried_again(remote, pauses, monkeypatch, caplog, error):
    remote.write("x", b"1")
    whole, left = remote._system.cat_file, [error] * 6

    def cut(path: str) -> bytes:
        if left:
            raise left.pop()
        return whole(path)

    monkeypatch.setattr(remote._system, "cat_file", cut)
    assert remote.read("x") == b"1"
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert len(caplog.records) == 6 and "trying again in 8 s" in caplog.text and remote._given in caplog.text


def test_patience_ends(remote, pauses, monkeypatch):
    def gone(path: str, data: bytes) -> None:
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(remote._system, "pipe_file", gone)
    with pytest.raises(InputError, match="refused: check that it exists"):
        remote.write("x", b"1")
    assert files.PATIENCE - files.LONGEST_PAUSE < sum(pauses) <= files.PATIENCE


@pytest.mark.parametrize(
    "error", [PermissionError("forbidden"), OSError(errno.EINVAL, "no such bucket"), ReadTimeoutError("who knows")]
)
def test_what_will_not_pass_is_reported_at_once(remote, pauses, monkeypatch, error):
    def refused(path: str, data: bytes) -> None:
        raise error

    monkeypatch.setattr(remote._system, "pipe_file", refused)
    with pytest.raises(InputError):
        remote.write("x", b"1")
    assert pauses == []


def test_the_errors_of_the_s3_client_are_known():
    exceptions = pytest.importorskip("botocore.exceptions", reason="s3fs is not installed")
    errors = pytest.importorskip("s3fs.errors")
    aiohttp = pytest.importorskip("aiohttp")

    def answered(code: str) -> Exception:
        return errors.translate_boto_error(exceptions.ClientError({"Error": {"Code": code, "Message": code}}, "Get"))

    for error in (
        exceptions.EndpointConnectionError(endpoint_url="http://s3"),
        exceptions.ConnectTimeoutError(endpoint_url="http://s3"),
        exceptions.ReadTimeoutError(endpoint_url="http://s3"),
        exceptions.ConnectionClosedError(endpoint_url="http://s3"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError(),
        *map(answered, ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "503")),
    ):
        assert files._out_of_reach(error), error
    for code in ("AccessDenied", "NoSuchBucket", "InvalidBucketName", "SignatureDoesNotMatch", "404"):
        assert not files._out_of_reach(answered(code)), code
    assert not files._out_of_reach(exceptions.NoCredentialsError())


def test_one_process_writes_what_another_removes(tmp_path):
    """As a run that was thought dead writes checkpoints while its successor clears them."""
    script = "import sys, time; from bbqrec.files import Files; f = Files(sys.argv[1])\n"
    writes = script + "for n in range(400): f.write(f'run/progress/a-{n}/state', b'x' * 5000)"
    removes = script + "for n in range(1000): f.remove('run/progress'); time.sleep(0.002)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for code in (writes, removes, removes)
    ]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3


def test_a_local_store_that_stays_in_the_way_is_reported_soon(tmp_path, pauses, monkeypatch):
    store = Files(tmp_path)

    def busy(path: str, recursive: bool) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(store._system, "rm", busy)
    with pytest.raises(InputError, match="Directory not empty"):
        store.remove("run")
    assert 1 < sum(pauses) <= files.LOCAL_PATIENCE
    assert Path(store.url) == tmp_path
