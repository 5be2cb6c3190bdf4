"""A sweep as a Ray Job: the cluster runs the whole command, its driver included, so that the laptop may go away.

Our packages travel with it, and the files that the command names; data sets go through the store. No secret does: who
sees the dashboard can read a job's command and environment, so nodes have credentials of their own.
"""

import json
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

import bbqrec
from bbqrec.errors import InputError
from bbqrec.files import one_line
from bbqrec.provenance import source_state
from bbqrec.store import Store
from sweeps.command_line import HIDDEN, options_of
from sweeps.connection import AUTO, copy_packages
from sweeps.job import OURS
from sweeps.job_server import DASHBOARD, address_of, connected

STOP_SECONDS = 60
"""That a driver has after SIGTERM. Ray by itself kills it after 3 s, too few to end the trials and write the rest."""
IN_STORE = "store:"
"""--dataset store:FINGERPRINT is the data set that the store holds under this fingerprint."""
LEFT_HERE = {"--submit", "--cluster", "--out", "--logs", "--dashboard", "--no-dashboard"}
"""Options that a job does not take over: what they name is a matter of the laptop. A job writes to its own folder."""
GIVEN = Path("given")
"""Folder in that of the job with the files that the command names."""
FILES = ("--tuned", "--seed-points")
"""Options that name such files."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is sent: `command` as the user typed it; `study` is the name of what it makes, `out` the laptop's folder in
    which that is to end. `folders` are its data sets: fingerprint -> folder.
    """

    address: str
    command: str
    study: str
    profile: str
    folders: Mapping[str, str]
    out: str = ""


def check(store: Store, shared: bool, cluster: str | None, mlflow: str | None) -> None:
    """Raises InputError for options that make no sense in a job, before anything is read or written."""
    if store.is_local and not shared:
        remedy = "give --store s3://..., or add --shared-store if that path is one folder here and on every node (NFS)"
        raise InputError(f"--submit with store {store.url}, a path that the cluster does not see", remedy)
    if cluster not in (None, AUTO):
        raise InputError(f"--submit and --cluster {cluster}", "leave out --cluster: a job runs where it is submitted")
    if mlflow is not None and not mlflow.startswith(("http://", "https://")):
        raise InputError(
            f"--mlflow {mlflow} would be written on the head", "give the URL of a server, http://host:5000"
        )


def submit(job: Submission, store: Store, console: Console) -> int:
    """Sends the job and says how to follow, stop and fetch it. Returns the exit status 0.

    Raises InputError if the server cannot be reached or refuses it, or if it runs the same study already.
    """
    if HIDDEN in job.command:
        what = "the command holds a password, which everybody who sees the dashboard could read"
        raise InputError(what, "leave it out; give the nodes the credentials, MLFLOW_TRACKING_PASSWORD for instance")
    address, (_, script, *words) = address_of(job.address), shlex.split(job.command)
    with connected(address) as server:
        busy = [other for other in server.ours() if not other.status.is_terminal()]
    for other in busy:
        about = other.metadata or {}
        if (about.get("study"), about.get("store")) == (job.study, store.url):
            remedy = f"follow it: {command('follow', str(other.submission_id), address)}"
            raise InputError(f"{job.study} runs already, as job {other.submission_id}", remedy)
    for fingerprint, folder in job.folders.items():
        if not store.has("dataset", fingerprint):
            console.print(f"copying {folder} to {store.url}", highlight=False, markup=False, soft_wrap=True)
            store.publish("dataset", fingerprint, folder, attempt="driver")
    name = f"{job.study}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    about = {"study": job.study, "store": store.url, "out": job.out, "command": job.command}
    about |= {OURS: bbqrec.__version__, "source": json.dumps(source_state())}
    with tempfile.TemporaryDirectory(prefix="bbqrec-job-") as made:
        folder = Path(made)
        copy_packages(folder)
        # Jobs with the same files would share a folder on the head, to which they write: so each has a file of its own.
        (folder / "job.json").write_text(json.dumps({"job": name, **about}, indent=1) + "\n", encoding="utf-8")
        entrypoint = shlex.join(["python", *sent(script, words, job, store, folder)])
        with connected(address) as server:
            server.submit_to_agent(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={"working_dir": made, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
                metadata=about,
            )
    lines = [f"submitted as job {name}; the dashboard: {address}/#/jobs/{name}"]
    lines += [f"{word + ':':8}{command(word, name, address)}" for word in ("follow", "stop", "fetch")]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return 0


def command(word: str, name: str, address: str) -> str:
    """The command line that follows, stops or fetches a job."""
    elsewhere = [] if address == DASHBOARD else ["--address", address]
    return shlex.join(["python", "-m", "sweeps.jobs", word, name, *elsewhere])


def sent(script: str, words: Sequence[str], job: Submission, store: Store, folder: Path) -> list[str]:
    """The command line as the head is to run it in `folder`, to which the files are copied that it names."""
    options = {name: values for name, values in options_of(words).items() if name not in LEFT_HERE}
    options["--dataset"] = [f"{IN_STORE}{fingerprint}" for fingerprint in job.folders]
    options |= {"--store": [store.url], "--profile": [job.profile], "--cluster": []}
    for name in FILES:
        options |= {name: [_given(name, value, folder) for value in options[name]]} if name in options else {}
    if Path(script).is_absolute() or not (folder / script).exists():  # of the user's own; the packages lie beside it
        script = _copied(Path(script), folder / Path(script).name).name
    return [script, *(word for name, values in options.items() for word in (name, *values))]


def folder_of(given: Path, store: Store) -> Path:
    """A --dataset as a folder. Raises InputError if it names one of the store that the store does not have."""
    if not str(given).startswith(IN_STORE):
        return given
    fingerprint = str(given).removeprefix(IN_STORE)
    folder = store.get("dataset", fingerprint) if fingerprint.isalnum() else None
    if folder is None:
        remedy = "check that the nodes reach the same store as the machine that submitted, and submit again"
        raise InputError(f"store {store.url} has no data set {fingerprint}", remedy)
    return folder


def _given(option: str, value: str, folder: Path) -> str:
    """A file or folder that an option names, where the job finds it, or writes it if it is not there: in its folder."""
    if not value:
        return value
    source = Path(value).expanduser()
    place = GIVEN / option.strip("-") / (source.name or "folder")
    while (folder / place).exists():  # two files of one name
        place = place.with_name(f"also-{place.name}")
    if source.exists():
        _copied(source, folder / place)
    return str(place)


def _copied(source: Path, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    except OSError as error:
        raise InputError(f"cannot send {source} ({one_line(error)})", "give a file that can be read") from error
    return target
