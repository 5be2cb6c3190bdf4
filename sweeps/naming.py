"""Names of what Ray runs: on its dashboard, where a Tune function is an `ImplicitFunc`, and among the processes."""

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray._raylet import setproctitle
from ray.tune.trainable import wrap_function

ACTOR = "bbqrec_run"
"""Class of the actors that take a study's runs, one after another."""


def named(
    function: Callable[[dict[str, Any]], None],
    resources: Mapping[str, float] | Callable[[dict[str, Any]], tune.PlacementGroupFactory],
    name: str,
    shown: str,
) -> type[tune.Trainable]:
    """The Tune function as a class of this `name`; `shown` stands beside it on the dashboard's page of actors.

    Both are fixed when the actor starts. What it does at the moment, which is the name in a trial's config, becomes the
    title of its process, after `ray::` as Ray has it: the dashboard's cluster page and its memory by component show it.
    """

    class Named(wrap_function(tune.with_resources(function, resources))):
        def step(self) -> dict[str, Any]:
            setproctitle(f"ray::{self.config['name']}")  # at every step, as Ray then sets its own
            return super().step()

        def __repr__(self) -> str:
            return shown

    Named.__name__ = Named.__qualname__ = name
    return Named
