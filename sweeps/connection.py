"""The Ray that a study runs on: one of its own on this machine, or a running cluster that gets the code with it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray

import analysis
import bbqrec
import sweeps
from bbqrec.errors import InputError
from bbqrec.store import Store
from sweeps import credentials
from sweeps.local_ray import access, loopback_only

AUTO = "auto"
"""--cluster without a value: RAY_ADDRESS if it is set, else the head on this machine."""

PROBE_SECONDS = 45
"""Ray itself gives up on a head that answers but refuses after about 20 s."""

PACKAGES = tuple(str(Path(package.__path__[0]).resolve()) for package in (bbqrec, sweeps, analysis))


SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning about a coming default
    "RAY_AIR_NEW_OUTPUT": "0",  # else Tune announces itself in a frame
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "32",  # trials that may wait for room: enough to make an autoscaler act
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@contextlib.contextmanager
def session(cluster: str | None, *, dashboard: bool = False) -> Iterator[None]:
    """Ray for the time of the block. `cluster` None starts one on this machine; else an address, or AUTO.

    Raises InputError if the cluster cannot be reached, within a minute.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    with _environment(cluster, dashboard), credentials.kept_to_their_nodes():
        if cluster is None:
            with loopback_only():
                ray.init(address="local", include_dashboard=dashboard, object_store_memory=2**28, **quiet)
        else:
            address = _reachable(cluster)
            with _code() as code:
                ray.init(address=address, runtime_env=code, **quiet)
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _code() -> Iterator[dict[str, str]]:
    """The runtime_env with our packages and nothing else, unless `ray job submit --working-dir` has sent them already.

    As a working directory: with it Ray leaves the driver's own folders out of the workers' path, where a node may
    have another version of the code.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    if "working_dir" in job.get("runtime_env", {}):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="bbqrec-code-") as folder:
        for package in PACKAGES:
            shutil.copytree(package, Path(folder) / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
        yield {"working_dir": folder}


def check_store(store: Store, shared: bool) -> None:
    """Raises InputError for a store in a local path on a cluster of several nodes, unless it is said to be shared."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and store.is_local and not shared:
        remedy = "give --store s3://..., or add --shared-store if that path is one folder on every node (NFS, Lustre)"
        raise InputError(f"store {store.url} is a local path, but the cluster has {nodes} nodes", remedy)


@contextlib.contextmanager
def _environment(cluster: str | None, dashboard: bool = False) -> Iterator[None]:
    """Environment for Ray: authentication settled one way or the other, workers that find the packages, little noise.

    Ray switches token authentication on or off by whether a token file happens to exist. A Ray of our own gets a token
    of its own; to a cluster we go with the token there is, which one without authentication ignores.
    """
    settings = dict(SETTINGS)
    if cluster is None:
        roots = dict.fromkeys(str(Path(package).parent) for package in PACKAGES)
        settings["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, [os.environ.get("PYTHONPATH")])])
        settings |= access(dashboard)
    elif "RAY_AUTH_MODE" not in os.environ:
        token_file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
        settings["RAY_AUTH_MODE"] = "token" if os.environ.get("RAY_AUTH_TOKEN") or token_file.exists() else "disabled"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    _reload_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        _reload_authentication()


def _reload_authentication() -> None:
    """Ray reads its authentication from the environment at import; there is no public way to have it read again."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _reachable(cluster: str) -> str:
    """The address to connect to, tried from another process: a failing connection can hang or end the process."""
    address = os.environ.get("RAY_ADDRESS") or AUTO if cluster == AUTO else cluster
    remedy = (
        "check the address and that the head runs (ray status), on a machine of the cluster; or leave out --cluster"
    )
    if "://" in address:
        raise InputError(
            f"cluster {address} is not host:port", "run on a machine of the cluster, e.g. with ray job submit"
        )
    host, _, port = address.rpartition(":")
    if address != AUTO:
        if not (host and port.isdecimal()):
            raise InputError(
                f"cluster {address} is not host:port", f"give the head's port, too, as in {host or address}:6379"
            )
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                pass
        except (OSError, OverflowError) as error:
            raise InputError(f"cluster {address} cannot be reached ({error})", remedy) from error
    program = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"
    try:
        subprocess.run(
            [sys.executable, "-c", program, address], check=True, capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"cluster {address} does not answer within {PROBE_SECONDS} s", remedy) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"cluster {address} cannot be reached ({said})", remedy) from error
    return address
