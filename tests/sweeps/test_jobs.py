"""Talking to a job server: failures are one line, a log is shown once whatever breaks, exit statuses."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from bbqrec.errors import InputError
from sweeps import following, jobs
from sweeps.following import exit_status, follow
from sweeps.interruption import terminated_like_interrupted
from sweeps.job_server import Unreachable, address_of, connected


@contextmanager
def server(answers: dict[str, tuple[int, object]]) -> Iterator[str]:
    """A job server that gives these answers by path, and 404 else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "Not Found"))
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


VERSION = (200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})


def job(name: str, status: JobStatus = JobStatus.RUNNING, **more: object) -> JobDetails:
    about = {"bbqrec": "0", "study": "ablations-1", "store": "s3://b/runs", "out": "", "command": "python"}
    return JobDetails(
        type=JobType.SUBMISSION, submission_id=name, status=status, entrypoint="python", metadata=about, **more
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "is no job server of Ray"),
        ({"/api/version": (200, "<html>")}, "is no job server of Ray"),
        ({"/api/version": (401, "Missing token")}, "wants its token, and has been shown no token"),
        ({"/api/version": (403, "Invalid token")}, "wants its token, and has been shown another one"),
        ({"/api/version": VERSION}, "run the head with ray\\[default\\]"),
        (
            {"/api/version": VERSION, "/api/jobs/": (500, "Traceback\n  File\nOSError: disk full\n")},
            "OSError: disk full",
        ),
        ({"/api/version": VERSION, "/api/jobs/": (500, "No available agent to submit")}, "dashboard_agent.log"),
    ],
)
def test_a_server_that_is_none_or_refuses_is_one_line(answers, said, capsys):
    with server(answers) as address:
        with pytest.raises(InputError, match=said) as caught, connected(address) as found:
            found.ours()
        assert "\n" not in str(caught.value) and address.split("//")[1] in str(caught.value)
        assert jobs.main(["list", "--address", address]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_nobody_there_is_said_at_once_with_how_to_get_there(capsys):
    assert jobs.main(["list", "--address", "127.0.0.1:9"]) == 2
    error = capsys.readouterr().err
    assert "job server http://127.0.0.1:9 cannot be reached" in error and "ray dashboard" in error


def test_an_address_is_found_as_ray_job_submit_finds_it(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert address_of("auto") == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a head, not its dashboard
    assert address_of("auto") == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example.com/")
    assert address_of("auto") == "https://ray.example.com"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "10.0.0.1:8265")
    assert address_of("auto") == "http://10.0.0.1:8265" and address_of("head:1") == "http://head:1"
    with pytest.raises(InputError, match="is no http://"):
        address_of("ray://10.0.0.1:10001")
    with pytest.raises(InputError, match="holds a password") as caught:
        address_of("http://me:secret@host")
    assert "secret" not in str(caught.value)


def test_a_job_is_found_by_the_beginning_of_its_name():
    listed = [job(name).model_dump() for name in ("ablations-1-a", "ablations-2-b", "x")]
    listed[2]["metadata"] = {}
    listed += [job(f"pbt-{n}", JobStatus.STOPPED, start_time=n).model_dump() for n in (1, 3, 2)]
    with server({"/api/version": VERSION, "/api/jobs/": (200, listed)}) as address, connected(address) as found:
        assert found.named("ablations-2").submission_id == "ablations-2-b"
        with pytest.raises(InputError, match="2 running jobs begin with 'abl': known are ablations-1-a, ablations-2-b"):
            found.named("abl")
        assert found.named("pbt").submission_id == "pbt-3"
        with pytest.raises(InputError, match="has no job 'x': known are pbt-3, pbt-2, pbt-1, ablations"):
            found.named("x")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.STOPPED, None, 130),
        (JobStatus.FAILED, 1, 1),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, 130, 130),
        (JobStatus.FAILED, -9, 1),
        (JobStatus.FAILED, None, 1),
    ],
)
def test_the_exit_status_is_that_of_the_command(status, code, expected):
    assert exit_status(job("a", status, driver_exit_code=code)) == expected


class Broken:
    """A job server whose connections break: each of `turns` is what one of them shows, then raises or ends."""

    def __init__(self, turns: list[tuple[str, type[Exception] | None]], end: JobDetails) -> None:
        self.turns, self.end = turns, end

    @contextmanager
    def __call__(self, address: str) -> Iterator["Broken"]:
        if not self.turns:
            raise Unreachable(f"job server {address} cannot be reached", "")
        yield self

    def get_job_info(self, name: str) -> JobDetails:
        return job(name) if len(self.turns) > 1 else self.end

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        shown, error = self.turns[0]
        for chunk in (shown[:3], shown[3:]):
            yield chunk
        if len(self.turns) > 1 or error is not None:
            self.turns.pop(0)
        if error is not None:
            raise error("job server http://head cannot be reached", "") if error is Unreachable else error("WebSocket")


def test_a_log_is_shown_once_whatever_breaks(monkeypatch, capsys):
    turns = [("one\ntwo\n", Unreachable), ("one\ntwo\nth", RuntimeError), ("one\ntwo\nthree\n", None)]
    monkeypatch.setattr(following, "connected", Broken(turns, job("a", JobStatus.FAILED, driver_exit_code=1)))
    monkeypatch.setattr(following, "PAUSE", 0.01)
    assert follow("http://head", "a") == 1
    printed = capsys.readouterr()
    assert printed.out == "one\ntwo\nthree\n" and printed.err.count("trying again") == 1


def test_after_a_while_without_connection_following_ends_and_the_job_does_not(monkeypatch, capsys):
    monkeypatch.setattr(following, "connected", Broken([("one\n", Unreachable)], job("a")))
    monkeypatch.setattr(following, "PAUSE", 0.01)
    monkeypatch.setattr(following, "PATIENCE", 0.1)
    with pytest.raises(InputError, match="cannot be reached, for 0 s: the job goes on without it; later: python"):
        follow("http://head", "a")
    assert capsys.readouterr().out == "one\n"


def test_a_log_that_nobody_reads_any_more_is_no_broken_connection():
    """What `follow NAME | head -1` gets."""
    program = """
import sys
sys.path.insert(0, "tests/sweeps")
from test_jobs import VERSION, job, server
from sweeps import jobs
from sweeps.job_server import JobServer
async def lines(self, name):
    for _ in range(20000):
        yield "a line\\n"
JobServer.tail_job_logs = lines
answer = job("ablations-1-a").model_dump()
paths = {"/api/version": VERSION, "/api/jobs/": (200, [answer]), "/api/jobs/ablations-1-a": (200, answer)}
with server(paths) as address:
    sys.exit(jobs.main(["follow", "ablations-1-a", "--address", address]))
"""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout.readline() == "a line\n"
        ran.stdout.close()
        assert ran.wait(60) == jobs.UNREAD and ran.stderr.read() == ""


def test_a_job_that_did_not_begin_says_why(monkeypatch, capsys):
    end = job("a", JobStatus.FAILED, message="runtime_env setup failed:\nTraceback ...")
    monkeypatch.setattr(following, "connected", Broken([("", None)], end))
    assert follow("http://head", "a") == 1
    assert "did not run to its end (runtime_env setup failed:)" in capsys.readouterr().err


def test_a_head_without_our_dependencies_is_told_apart(monkeypatch, capsys):
    message = "exit code 1, last logs:\n  import torch\nModuleNotFoundError: No module named 'torch'\n"
    end = job("a", JobStatus.FAILED, driver_exit_code=1, message=message)
    monkeypatch.setattr(following, "connected", Broken([("", None)], end))
    assert follow("http://head", "a") == 1
    assert "error: the head's python has no package torch: install" in capsys.readouterr().err


def test_ctrl_c_ends_the_following_alone(monkeypatch, capsys):
    def interrupted(address: str, name: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    answers = {"/api/version": VERSION, "/api/jobs/": (200, [job("ablations-1-a").model_dump()])}
    with server(answers) as address:  # which would answer 404 to a stop
        assert jobs.main(["follow", "abl", "--address", address]) == 130
    assert "the job goes on; to stop it: python -m sweeps.jobs stop ablations-1-a" in capsys.readouterr().err


def test_fetching_what_is_not_there_is_one_line(store, capsys):
    assert jobs.main(["fetch", "ablations-1a2b3c4d", "--store", store.url]) == 2
    assert "has nothing of ablations-1a2b3c4d yet" in capsys.readouterr().err


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_is_ctrl_c(ignored):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == before[1]
        with terminated_like_interrupted():
            handler = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, lambda number, frame: None)  # as Tune does
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before[0])


def test_a_blocked_sigint_does_not_matter():
    """As it is in the processes of a Ray Job."""
    program = """
import signal
from sweeps.interruption import terminated_like_interrupted
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
try:
    with terminated_like_interrupted():
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    print("interrupted")
"""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ran.stdout == "interrupted\n", ran.stderr
