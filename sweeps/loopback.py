"""A Ray of this machine alone listens on this machine alone."""

import contextlib
import os
import sys
from collections.abc import Iterator

from ray._private import ray_constants

SETTINGS = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"} | (
    {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # several workers on one run
)


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """A Ray started in this block uses 127.0.0.1 for all its ports, as it always does on macOS and Windows.

    On Linux it would listen on every interface, and its `_node_ip_address` takes 127.0.0.1 for a mistake. The switch
    for the other systems is read at import, by its processes from the environment.
    """
    clusters, before = ray_constants.ENABLE_RAY_CLUSTER, {name: os.environ.get(name) for name in SETTINGS}
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
