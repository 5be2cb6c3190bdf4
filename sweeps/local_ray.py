"""The Ray that a study starts for itself: it listens on this machine alone, and talks to nobody without the token."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from ray._private import ray_constants

from bbqrec.errors import InputError
from bbqrec.files import one_line

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


def access(dashboard: bool) -> dict[str, str]:
    """The token as settings of the environment: one that nobody else knows, or the user's own for a `dashboard`.

    The dashboard asks for it, and `ray get-auth-token` prints it. If there is none it is made, for the user to read.
    """
    settings = {"RAY_AUTH_MODE": "token"}
    if not dashboard:
        return settings | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if not os.environ.get("RAY_AUTH_TOKEN"):
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        except OSError as error:
            if not path.is_file():  # else it is the user's own
                remedy = "name a file that can be in RAY_AUTH_TOKEN_PATH, or leave out --dashboard"
                what = f"the dashboard's token {path} cannot be written ({one_line(error)})"
                raise InputError(what, remedy) from error
    return settings
