"""The job server of a Ray cluster, which its dashboard is: every failure is one InputError, nothing waits forever."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from bbqrec.errors import InputError
from bbqrec.files import one_line
from sweeps.connection import AUTO, TOKEN_REMEDY, environment
from sweeps.job import OURS

DASHBOARD = "http://127.0.0.1:8265"
"""Where `ray dashboard` and `kubectl port-forward` bring a cluster's dashboard."""
SECONDS = 30.0
"""For any one answer. The upload of the packages, of some hundred kilobytes, is the longest."""
START_SECONDS = 60.0
"""That a head may take to start."""
NO_AGENT = "No available agent"
"""What a dashboard says without the process that starts jobs."""
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that report what is packed, sent and closed."""


class Unreachable(InputError):
    """No answer, which may come later."""


class JobServer(JobSubmissionClient):
    """Ray's client, whose requests end."""

    def _do_request(self, *words: Any, **options: Any) -> requests.Response:
        return super()._do_request(*words, **{"timeout": SECONDS, **options})

    def submit_to_agent(self, **job: Any) -> None:
        """`submit_job`, also to a head that started only just now: its agent is some seconds behind its dashboard."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.submit_job(**job)
                return
            except RuntimeError as error:
                if NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def ours(self) -> list[JobDetails]:
        """The jobs that `--submit` made, the latest first."""
        found = [job for job in self.list_jobs() if job.submission_id and OURS in (job.metadata or {})]
        return sorted(found, key=lambda job: job.start_time or 0, reverse=True)

    def named(self, name: str) -> JobDetails:
        """The job with this submission ID, or the one of ours that begins so: the running one, else the latest.

        Raises InputError if there is none, or if several run.
        """
        ours = self.ours()
        found = [job for job in ours if job.submission_id == name] or [
            job for job in ours if str(job.submission_id).startswith(name)
        ]
        running = [job for job in found if not job.status.is_terminal()]
        if not found or len(running) > 1:
            known = ", ".join(str(job.submission_id) for job in running or ours) or "none: the head may be a new one"
            what = f"{len(running)} running jobs begin with {name!r}" if found else f"the cluster has no job {name!r}"
            raise InputError(what, f"known are {known}")
        return (running or found)[0]


def address_of(given: str) -> str:
    """The URL of a dashboard: as given or, for AUTO, as `ray job submit` takes it from the environment."""
    if given == AUTO:
        given = os.environ.get("RAY_API_SERVER_ADDRESS") or ""
        if not given and "://" in (of_ray := os.environ.get("RAY_ADDRESS", "")):
            given = of_ray
        given = given or DASHBOARD
    address = given if "://" in given else f"http://{given}"
    if not address.startswith(("http://", "https://")):
        raise InputError(f"job server {given} is no http:// or https:// URL", f"give its dashboard's, as {DASHBOARD}")
    if "@" in address.partition("://")[2].partition("/")[0]:
        raise InputError("the job server's address holds a password", "give the address alone; Ray has its token")
    return address.rstrip("/")


@contextlib.contextmanager
def connected(address: str) -> Iterator[JobServer]:
    """The job server at a URL. Raises InputError for what goes wrong in the block, too: Unreachable if it is silent."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    try:
        with environment(address):
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray takes before the one that it is given
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield JobServer(address)
    except AuthenticationError as error:
        had = "no token" if "required" in str(error) else "another one"
        raise InputError(f"job server {address} wants its token, and has been shown {had}", TOKEN_REMEDY) from error
    except (requests.ConnectionError, requests.Timeout, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        remedy = (
            "check that the head runs with its dashboard (ray[default]), and that it is forwarded: "
            "`ray dashboard FILE`, `ssh -L 8265:127.0.0.1:8265 HEAD`, `kubectl port-forward service/HEAD 8265`"
        )
        raise Unreachable(f"job server {address} cannot be reached", remedy) from error
    except (RuntimeError, ValueError, requests.RequestException) as error:
        off = "404" in str(error) and "/api/version" not in str(error)
        if isinstance(error, requests.RequestException | ValueError) or "Version check" in str(error):
            remedy = "give the address of a Ray dashboard; a head without ray[default] has none"
            raise InputError(f"{address} is no job server of Ray ({_short(error)})", remedy) from error
        remedy = "run the head with ray[default]" if off else "see the head's logs"
        if NO_AGENT in str(error):
            remedy = "see dashboard_agent.log on the head: its port may be taken (--dashboard-agent-listen-port)"
        raise InputError(f"job server {address}: {_short(error)}", remedy) from error
    finally:
        os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        if before is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def _short(error: Exception) -> str:
    """A reply that is a traceback ends with what is meant."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip(" .")]
    return one_line(error)[:200] if len(lines) < 2 else lines[-1][:200]
