"""What several test files need: stores on every kind of file system, a tiny data set, real data where there is some."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from bbqrec.data import load_dataset
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.schema import Dataset
from bbqrec.store import Store


def pytest_configure() -> None:
    """One thread here and in what the tests start: with small tensors threads only wait for each other.

    Without a GPU, Triton's kernels run in its interpreter.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings.register_profile("bbqrec", deadline=None)  # a busy machine fails no test
    settings.load_profile("bbqrec")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported, by whomever


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever else is selected (-m "not slow"), what is rare runs only if it is asked for by name."""
    for rare in ("fault", "namespaces"):
        asked = rare in config.option.markexpr.replace(f"not {rare}", "")
        unasked = [item for item in items if item.get_closest_marker(rare) and not asked]
        if unasked:
            config.hook.pytest_deselected(items=unasked)
            items[:] = [item for item in items if item not in unasked]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An S3 server on the loopback interface, which this process and those it starts take for the only one."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    server.stop()


@pytest.fixture
def s3_url(s3_server: None) -> str:
    """A place in an empty bucket of the test's own."""
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/runs"


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded data set with fewer users and items: text and image, some of both missing."""
    config = SyntheticConfig(users=60, items=222, seed=7, mean_length=6.0, max_length=12, text_width=10, image_width=14)
    folder = tmp_path_factory.mktemp("tiny") / "dataset"
    prepare_synthetic(config, folder, "tiny")
    return load_dataset(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that BBQREC_SHARED names (toys/, beauty/, ... as tables and feature files)."""
    folder = os.environ.get("BBQREC_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BBQREC_SHARED names no folder with the real data sets")
    return Path(folder).resolve()
