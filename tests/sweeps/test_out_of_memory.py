"""What Ray does to a worker of a machine low on memory is a death that Tune can deal with."""

from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from sweeps.out_of_memory import LOW_ON_MEMORY, survived


def test_it_is_passed_on_as_the_death_of_the_worker():
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id=3, _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    with survived():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=OutOfMemoryError("full"))
    (error,) = told
    assert isinstance(error, RayActorError) and str(error) == LOW_ON_MEMORY and manager._failed_actor_ids == {3}
    with pytest.raises(RuntimeError, match="unexpected"):  # once this fails, Ray knows, and `survived` can go
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=OutOfMemoryError("full"))
