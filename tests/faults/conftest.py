"""The quiet study that every other one is compared with, an S3 server that can be stopped, the report at the end."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import REPORT, ROOT, Bench, write_report

from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic

SMALL = {"values": (2, 2, 2, 2), "items": 97, "mean_length": 6.0, "max_length": 9, "text_width": 10, "image_width": 14}


def pytest_sessionfinish() -> None:
    if REPORT:
        write_report(REPORT, Path(os.environ.get("BBQREC_FAULTS_OUT", ROOT / "out")))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy"
    prepare_synthetic(SyntheticConfig(users=53, seed=3, **SMALL), path, "toy")
    return path


@pytest.fixture(scope="session")
def quiet(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of a study that nothing disturbed, with the stages as they are."""
    folder = tmp_path_factory.mktemp("quiet")
    bench = Bench(toy, folder, str(folder / "runs"), str(folder / "runs"))
    bench.start(stages="bbqrec.stages")
    bench.finish()
    return bench.url


@pytest.fixture
def bench(toy: Path, quiet: str, tmp_path: Path) -> Iterator[Bench]:
    """A study that is to be disturbed, in a local store."""
    made = Bench(toy, tmp_path, str(tmp_path / "runs"), quiet)
    yield made
    made.close()


class Moto:
    """An S3 server on one port, with contents that outlive its stops."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = Moto()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield server
    server.stop()


@pytest.fixture
def on_s3(bench: Bench, moto: Moto) -> Bench:
    """The same in a bucket of its own."""
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(bucket)
    bench.url = f"s3://{bucket}/runs"
    return bench


@pytest.fixture
def anywhere(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """Parametrized indirectly with "local" or "s3"."""
    return request.getfixturevalue("on_s3") if request.param == "s3" else bench
