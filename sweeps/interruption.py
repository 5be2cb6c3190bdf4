"""SIGTERM as Ctrl-C: what stops a job or a Slurm allocation lets a driver end its trials and write its study file."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """For the time of the block; a driver enters it again after `ray.init`, which sets a handler that just ends it.

    Calls whatever handles SIGINT at that moment. It is not sent, as the processes of a Ray Job have it blocked. What
    handled it before does so again afterwards: Tune leaves a handler behind that swallows the first Ctrl-C. Outside of
    the main thread, where signals do not arrive, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGINT: signal.getsignal(signal.SIGINT), signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # set by other than Python
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # ignored, as in a background process of a shell
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
