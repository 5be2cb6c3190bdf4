"""What has to be in the store before stage 2 of one run can be trained: its quantizer, and that one's teacher."""

from pathlib import Path

from rich.console import Console

from bbqrec.methods import METHODS
from bbqrec.run import RunConfig
from bbqrec.store import Store
from sweeps.cell import Cell
from sweeps.launch import Resources, compute
from sweeps.ledger import Ledger
from sweeps.study import Plan, Run, Study, stage_runs
from sweeps.trackers import Trackers


class Groundwork(Ledger):
    """The runs behind a method's recommender, as a study of one quantizer that leaves no study file."""

    def __init__(self, chain: list[Run], run: RunConfig, method: str, profile: str, name: str, store: Store) -> None:
        last, folder = chain[-1], chain[-1].folder
        cell = Cell(
            method=method,
            label=METHODS[method].label,
            dataset=run.dataset,
            fingerprint=run.fingerprint,
            seed=run.seed,
            quantizer_key=last.key,
            run_key=last.key,
        )
        study = Study(name=name, methods=(method,), datasets=(Path(folder),), profile=profile, stage="quantizer")
        plan = Plan(
            study=study,
            cells=(cell,),
            runs={run.key: run for run in chain},
            done=frozenset(run.key for run in chain if store.has(run.stage, run.key)),
            scores={},
            folders={run.fingerprint: folder},
            statistics={},
        )
        super().__init__(plan, store)

    def write(self, final: bool = False) -> None:
        """Nothing: it is no study."""


def missing(run: RunConfig, method: str, folder: Path, store: Store) -> list[Run]:
    """The runs that `lay_groundwork` would compute. [] for a model without a quantizer."""
    chain = stage_runs(run, method, str(folder))[:-1]
    return list(Groundwork(chain, run, method, "paper", "groundwork", store).missing) if chain else []


def lay_groundwork(
    run: RunConfig,
    method: str,
    profile: str,
    folder: Path,
    store: Store,
    resources: Resources,
    *,
    name: str,
    console: Console,
    trackers: Trackers | None = None,
) -> dict[str, str]:
    """Computes what is missing, like a study. Returns the errors of the runs that failed, by name.

    Raises KeyboardInterrupt if it was interrupted.
    """
    chain = stage_runs(run, method, str(folder))[:-1]
    if not chain:
        return {}
    ledger = Groundwork(chain, run, method, profile, name, store)
    compute(ledger, resources, console=console, trackers=trackers)
    if not ledger.errors and not ledger.complete:
        raise KeyboardInterrupt
    return {ledger.runs[key].name: error for key, error in ledger.errors.items()}
