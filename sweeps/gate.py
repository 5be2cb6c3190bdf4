"""The order of a study's runs: a recommender becomes a trial only when its quantizer is published.

Nothing waits inside a trial, so no CPU or GPU is held by a run that cannot start yet.
"""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sweeps.ledger import Ledger
from sweeps.study import Run
from sweeps.tuning_ledger import TuningLedger


class Gate(Searcher):
    """Hands a ledger's waiting runs to Tune, at most `concurrency` at a time; `describe` makes a run's trial config.

    Tune does not see what the workers of a run take that it did not start itself: all live runs together have at most
    `places` workers.
    """

    def __init__(
        self,
        ledger: Ledger | TuningLedger,
        describe: Callable[[Run], dict[str, Any]],
        concurrency: int | None = None,
        places: int | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self.describe, self.concurrency, self.places = ledger, describe, concurrency, places
        self.live: dict[str, Run] = {}
        self.taken: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next run that can start, None if there is none yet, FINISHED if there will be none."""
        begun = {run.key for run in self.live.values()}
        waiting = [run for run in self.ledger.waiting() if run.key not in begun]
        if not waiting and self.ledger.settled:
            return Searcher.FINISHED
        if self.concurrency is not None and len(self.live) >= self.concurrency:
            return None
        for run in waiting:
            if run.needs is None or self.ledger.status[run.needs] == "done":
                config = self.describe(run)
                workers = config.get("workers", 1)
                if self.places is None or not self.live or sum(self.taken.values()) + workers <= self.places:
                    self.live[trial_id], self.taken[trial_id] = run, workers
                    return config
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Frees the run's place. Whether it is done is for the ledger to say."""
        self.live.pop(trial_id, None)
        self.taken.pop(trial_id, None)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restore that is never used

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store is the truth, and the next plan is made from it."""

    def restore(self, checkpoint_path: str) -> None:
        """Never used, see `save`."""
