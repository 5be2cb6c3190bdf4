"""The Ray that a study runs on: one of its own on this machine, or a running cluster that gets the code with it."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import analysis
import bbqrec
import sweeps
from bbqrec.errors import InputError
from sweeps import credentials
from sweeps.interruption import terminated_like_interrupted
from sweeps.local_ray import access, loopback_only

AUTO = "auto"
"""--cluster without a value: RAY_ADDRESS if it is set, else the head on this machine."""

PROBE_SECONDS = 45
"""Ray itself gives up on a head that answers but refuses after about 20 s."""

TOKEN_REMEDY = "bring the head's token here: `ray get-auth-token` prints it there, ~/.ray/auth_token has it here"
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
def session(cluster: str | None, *, dashboard: bool = False) -> Iterator[str]:
    """Ray for the time of the block, which gets the dashboard's URL, "" without one. `cluster` None starts one on this
    machine; else an address, or AUTO.

    Raises InputError if the cluster cannot be reached, within a minute.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    # Interruption twice: `ray.init` sets a handler of SIGTERM that just ends the process, and leaves it behind.
    with environment(cluster, dashboard), credentials.kept_to_their_nodes(), terminated_like_interrupted():
        if cluster is None:
            with loopback_only():
                started = _started(address="local", include_dashboard=dashboard, object_store_memory=2**28, **quiet)
        else:
            address = _reachable(cluster)
            with code() as folder:
                started = _started(address=address, runtime_env=folder, **quiet)
        with terminated_like_interrupted():
            try:
                yield f"http://{started.dashboard_url}" if started.dashboard_url else ""
            finally:
                ray.shutdown()


def _started(**options: Any) -> Any:
    """`ray.init`. SIGTERM interrupts it, too: the handler that it sets within its first moments ends the process."""
    try:
        return ray.init(**options)
    except SystemExit as error:
        raise KeyboardInterrupt from error


@contextlib.contextmanager
def code() -> Iterator[dict[str, str]]:
    """The runtime_env with our packages and nothing else, unless the driver is a job that has come with them already.

    As a working directory: with it Ray leaves the driver's own folders out of the workers' path, where a node may
    have another version of the code.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    if "working_dir" in job.get("runtime_env", {}):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="bbqrec-code-") as folder:
        copy_packages(Path(folder))
        yield {"working_dir": folder}


def copy_packages(folder: Path) -> None:
    """Our packages, without what Python makes of them."""
    for package in PACKAGES:
        shutil.copytree(package, folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))


@contextlib.contextmanager
def environment(cluster: str | None, dashboard: bool = False) -> Iterator[None]:
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
        settings["RAY_AUTH_MODE"] = "token" if _has_token() else "disabled"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    _reload_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        _reload_authentication()


def _has_token() -> bool:
    """Whether Ray will find a token, in the environment or in its file."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or file.exists()


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
            f"cluster {address} is not host:port",
            "give --submit and the URL of its dashboard, or run on a machine of the cluster",
        )
    host, _, port = address.rpartition(":")
    if address != AUTO:
        if not (host and port.isdecimal()):
            raise InputError(
                f"cluster {address} is not host:port", f"give the head's port, too, as in {host or address}:6379"
            )
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
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
        raise _refused(address, error.stderr, remedy) from error
    return address


def _refused(address: str, said: str, remedy: str) -> InputError:
    """What a failed connection means, by the last words of the process that tried it."""
    mismatch = said.rpartition("Version mismatch:")[2]
    if mismatch != said and (versions := re.findall(r"(Ray|Python): ?(\S+)", mismatch)):
        pairs = [f"{name} {version}" for name, version in versions]
        there, here = ", ".join(pairs[: len(pairs) // 2]), ", ".join(pairs[len(pairs) // 2 :])
        return InputError(f"cluster {address} has {there}, this machine {here}", "install the cluster's versions here")
    if "AuthenticationError" in said or "InvalidAuthToken" in said:
        sent = os.environ.get("RAY_AUTH_MODE") != "disabled" and _has_token()
        had = "another one" if sent else "no token"
        return InputError(f"cluster {address} wants its token, and has been shown {had}", TOKEN_REMEDY)
    last = (said.strip().splitlines() or ["no reason given"])[-1]
    return InputError(f"cluster {address} cannot be reached ({last.strip()})", remedy)
