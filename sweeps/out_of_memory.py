"""A worker that Ray ends because its machine runs low on memory: for Tune the death of a process like any other."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

LOW_ON_MEMORY = "The actor died: its machine ran low on memory"


@contextlib.contextmanager
def survived() -> Iterator[None]:
    """For the time of the block, Tune retries what was ended so. By itself (Ray 2.60) it dies of the unknown error."""
    known = RayActorManager._actor_task_failed

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=LOW_ON_MEMORY)
        known(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = known
