"""The jobs that `--submit` made: list them, follow and stop them, fetch what they made.

    python -m sweeps.jobs list
    python -m sweeps.jobs follow ablations-1a2b3c4d-20260131-120000      the beginning of a name will do
    python -m sweeps.jobs stop ablations-1a2b
    python -m sweeps.jobs fetch ablations-1a2b --out out

The cluster is the one whose dashboard --address names, by default as for --submit. Its name leaves the job when the
head is gone, but not its results: `fetch --store URL` needs no cluster.
"""

import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro
from ray.job_submission import JobDetails, JobStatus
from tyro.extras import SubcommandApp

from analysis.report import write_report
from bbqrec.errors import InputError
from bbqrec.store import Store
from sweeps.connection import AUTO
from sweeps.following import Unread, exit_status, follow
from sweeps.job import TUNED_IN_STORE
from sweeps.job_server import address_of, connected
from sweeps.progress import duration
from sweeps.submission import STOP_SECONDS, command
from sweeps.tuned import TUNED, write_tuned

Name = Annotated[str, tyro.conf.Positional]
app = SubcommandApp()
UNREAD = 141
"""Exit status of what a shell ends by SIGPIPE."""


@app.command(name="list")
def list_jobs(address: str = AUTO) -> None:
    """List the cluster's jobs that --submit made, the latest first.

    Args:
        address: URL of the cluster's dashboard.
    """
    with connected(where := address_of(address)) as server:
        jobs = server.ours()
    if not jobs:
        return print(f"{where} has no jobs of ours")
    for job in jobs:
        begun, ended = (job.start_time or 0) / 1000, (job.end_time or 0) / 1000
        since = f"since {datetime.fromtimestamp(begun, UTC):%Y-%m-%d %H:%M} UTC" if begun else ""
        took = duration(max(0, (ended or time.time()) - begun) if begun else None)  # clocks differ
        print(f"{job.submission_id}  {_state(job):10}  {since}, {took:>8}  {(job.metadata or {}).get('store', '')}")


@app.command(name="follow")
def follow_job(name: Name, address: str = AUTO) -> int:
    """Show what a job prints until it ends, and end as it did: 0, 1 if a run failed, 2 for bad input, 130 if stopped.

    A lost connection is taken up again. Ctrl-C ends the following, not the job.

    Args:
        name: The job, or the beginning of its name.
        address: URL of the cluster's dashboard.
    """
    with connected(where := address_of(address)) as server:
        job = str(server.named(name).submission_id)
    try:
        return follow(where, job)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; to stop it: {command('stop', job, where)}", file=sys.stderr)
        return 130
    except Unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python still holds goes nowhere
        return UNREAD


@app.command(name="stop")
def stop_job(name: Name, address: str = AUTO) -> int:
    """Stop a job: it ends its runs, whose epochs the store keeps, and writes what is there. Submit again to go on.

    Args:
        name: The job, or the beginning of its name.
        address: URL of the cluster's dashboard.
    """
    with connected(where := address_of(address)) as server:
        job = server.named(name)
        if job.status.is_terminal():
            print(f"{job.submission_id} has ended already: {_state(job)}")
            return 0
        server.stop_job(str(job.submission_id))
        deadline = time.monotonic() + STOP_SECONDS + 30
        while not job.status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
            job = server.get_job_info(str(job.submission_id))
    if not job.status.is_terminal():
        raise InputError(f"{name} has not ended yet", f"look again: {command('follow', name, where)}")
    print(f"{job.submission_id}: {_state(job)}; what was computed is in the store, the same command goes on from there")
    return 0


@app.command(name="fetch")
def fetch(name: Name, address: str = AUTO, store: str | None = None, out: Path | None = None) -> None:
    """Write the tables and figures of a job to a folder of this machine, also while it runs; of a tuning, its choices.

    Args:
        name: The job, or the beginning of its name; with --store its whole name, or that of its study.
        address: URL of the cluster's dashboard.
        store: Folder or URL of the results; with it the cluster is not asked, and may be gone.
        out: Folder for the files. Default: the one that was submitted with.
    """
    study, given = re.sub(r"-\d{8}-\d{6}$", "", name), ""
    if store is None:
        with connected(address_of(address)) as server:
            about = server.named(name).metadata or {}
        study, store, given = about["study"], about["store"], about["out"]
    source = Store(store, writable=False)
    if study.startswith(("tuning-", "pbt-")):
        return _fetch_tuned(source, study, out or Path(given or TUNED))
    out = out or Path(given or "out")
    described = source.load_json(f"study/{study}.json")
    if described is None:
        raise InputError(f"store {source.url} has nothing of {study} yet", f"see how far it is: {_hint(name, address)}")
    files = write_report(source, described, out)
    states = Counter(cell["status"] for cell in described["cells"])
    cells = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{study}: cells: {cells}; {len(files)} files in {out.resolve()}")


def _fetch_tuned(source: Store, study: str, out: Path) -> None:
    found = [
        source.load_json(f"{TUNED_IN_STORE}/{study}/{n}.json") for n in source.json_names(f"{TUNED_IN_STORE}/{study}")
    ]
    if not found:
        raise InputError(f"store {source.url} has nothing of {study} yet", "a method's choice is there when it is made")
    for choice in found:
        print(write_tuned(out, choice, ".pbt" if "schedule" in choice else ""))


def _hint(name: str, address: str) -> str:
    return command("follow", name, address_of(address))


def _state(job: JobDetails) -> str:
    """In words, with the exit status of one that failed."""
    if job.status == JobStatus.FAILED:
        return f"failed ({exit_status(job)})"
    return {JobStatus.SUCCEEDED: "done", JobStatus.PENDING: "starting"}.get(job.status, str(job.status.value).lower())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; bad input ends in one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING, stream=sys.stdout)
    try:
        return app.cli(prog="python -m sweeps.jobs", description=__doc__, args=args) or 0
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
