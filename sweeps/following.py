"""What a job prints, as it prints it, over a connection that may break."""

import asyncio
import re
import sys
import time

from ray.job_submission import JobDetails, JobStatus

from bbqrec.errors import InputError
from sweeps.job_server import JobServer, Unreachable, connected
from sweeps.node_checks import INSTALL
from sweeps.submission import command

PATIENCE = 180.0
"""Seconds without a connection after which following ends; the job does not."""
PAUSE = 2.0
"""Seconds between two tries."""
QUIET_SECONDS = 60.0
"""Without a word, after which the connection is made anew: one that was cut silently never says so. A study prints a
line every ten seconds."""
OWN_STATUSES = (1, 2, 130)


class Unread(Exception):
    """Nobody reads what is printed any more, as behind `| head`. To a job server it would be a broken connection."""


def follow(address: str, job: str) -> int:
    """Prints the log of a job until it ends; returns its exit status.

    Raises InputError if the cluster does not know it (any more), or if there was no connection for PATIENCE seconds;
    Unread if its own output is closed.
    """
    log, lost = Log(), None
    while True:
        try:
            with connected(address) as server:
                server.get_job_info(job)
                lost = None
                # Only a log that was shown to its end may be followed by the exit status.
                if asyncio.run(log.show(server, job)) and (info := server.get_job_info(job)).status.is_terminal():
                    return _ended(info)
        except Unreachable as error:
            if lost is None:
                lost = time.monotonic()
                print(f"{error.what}: trying again for {PATIENCE:.0f} s", file=sys.stderr, flush=True)
            elif time.monotonic() - lost > PATIENCE:
                remedy = f"the job goes on without it; later: {command('follow', job, address)}"
                raise InputError(f"{error.what}, for {PATIENCE:.0f} s", remedy) from error
        time.sleep(PAUSE)


class Log:
    """A job's log, of which the first `shown` characters have been printed, over however many connections."""

    def __init__(self) -> None:
        self.shown = 0

    async def show(self, server: JobServer, job: str) -> bool:
        """Prints what follows. Whether that was to the end, not to a silence or a connection that broke."""
        seen, chunks = 0, server.tail_job_logs(job)
        try:
            while True:
                chunk = await asyncio.wait_for(anext(chunks), QUIET_SECONDS)
                _print(chunk[max(self.shown - seen, 0) :])
                seen += len(chunk)
                self.shown = max(self.shown, seen)
        except StopAsyncIteration:
            return True
        except TimeoutError:
            return False
        except RuntimeError as error:
            if "WebSocket" not in str(error):
                raise
            return False
        finally:
            await chunks.aclose()


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise Unread from error


def exit_status(info: JobDetails) -> int:
    """That of the command, 130 if it was stopped, 1 if it did not even start."""
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return 130
    return info.driver_exit_code if info.driver_exit_code in OWN_STATUSES else 1


def _ended(info: JobDetails) -> int:
    """The exit status, and in a line why, where the log does not say it."""
    status = exit_status(info)
    if info.status == JobStatus.STOPPED:
        print("stopped: submit the same command again to go on", file=sys.stderr)
    elif info.status == JobStatus.FAILED and info.driver_exit_code not in OWN_STATUSES:
        lines = [line.strip() for line in (info.message or "no reason given").splitlines() if line.strip()]
        print(f"error: the job did not run to its end ({lines[0][:300]})", file=sys.stderr)
    elif info.status == JobStatus.FAILED and (missing := re.search(r"No module named '([\w.]+)'", info.message or "")):
        print(f"error: the head's python has no package {missing[1]}: {INSTALL}", file=sys.stderr)
    return status
