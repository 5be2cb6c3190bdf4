"""Three nodes with Ray and an S3 server, for all tests of this folder, and the single-node study they compare with."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "faults"))  # comparison of studies, for which nothing need be told twice

from nodes import Network, unavailable  # noqa: E402
from ray_nodes import RayNodes  # noqa: E402
from studies import SingleNode, Studies  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    """Skips with the reason where there can be no namespaces."""
    if reason := unavailable():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def single_node(possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleNode]:
    made = SingleNode(tmp_path_factory.mktemp("single"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def cluster(possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with Network(tmp_path_factory.mktemp("nodes")) as network:
        network.serve_s3()
        found = RayNodes(network)
        found.start()
        yield found


@pytest.fixture
def studies(cluster: RayNodes, single_node: SingleNode, tmp_path: Path) -> Iterator[Studies]:
    """Studies in a bucket of their own, on a cluster that is whole."""
    cluster.start()
    bucket = f"bucket-{uuid.uuid4().hex}"
    cluster.network.s3(f"s3.mkdir('{bucket}')")
    made = Studies(cluster, bucket, tmp_path, single_node)
    yield made
    made.close()
