"""Live progress of a study: a panel on a terminal, a line every few seconds elsewhere."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.ledger import Ledger
from sweeps.metrics import StudyMetrics
from sweeps.out_of_memory import LOW_ON_MEMORY
from sweeps.study import Run
from sweeps.trainable import HOPELESS, NOTE
from sweeps.tuning_ledger import TuningLedger

LINE_SECONDS = 10.0
PANEL_SECONDS = 0.5


class Progress(Callback):
    """Passes what Tune says on to the ledger, and shows it. A context manager: the display lives inside it.

    `slots` is the number of runs that fit side by side, for the ETA.
    """

    def __init__(
        self,
        ledger: Ledger | TuningLedger,
        console: Console,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.console, self.slots, self.clock = ledger, console, slots, clock
        self.started, self.shown = clock(), float("-inf")
        self.epochs: dict[str, tuple[int, int]] = {}
        self.last: dict[str, float] = {}
        self.costs: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self.live: Live | None = None
        self.metrics = StudyMetrics(ledger)
        self._open = ExitStack()

    def __enter__(self) -> "Progress":
        self._open.enter_context(self.metrics)
        if self.console.is_terminal:
            self.live = self._open.enter_context(Live(self.panel(), console=self.console, auto_refresh=False))
        return self

    def __exit__(self, *error: object) -> None:
        self.show(force=True)
        self._open.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that is never used

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.last[trial.config["key"]] = self.clock()
        self.ledger.start(trial.config["key"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        key, now = trial.config["key"], self.clock()
        if HOPELESS in result:
            return self._fail(trial, result[HOPELESS], hopeless=True)
        if NOTE in result:
            return self.console.print(f"{trial.config['name']}: {result[NOTE]}", highlight=False, markup=False)
        self.epochs[key] = (result["epoch"], result["epochs"])
        for alike in (_alike(self.ledger.runs[key]), (trial.config["stage"],)):
            self.costs[alike].append(now - self.last.get(key, now))
        self.last[key] = now
        self.ledger.report(key, result)
        self.metrics.report(self.ledger.runs[key], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.ledger.status[trial.config["key"]] != "failed":
            self.ledger.finish(trial.config["key"])
        self.shown = min(self.shown, self.clock() - LINE_SECONDS + 1)  # soon, with the next run begun

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.metrics.retry(self.ledger.runs[trial.config["key"]])
        self.console.print(f"retrying {trial.config['name']}: {reason(trial)}", highlight=False, markup=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._fail(trial, reason(trial))

    def _fail(self, trial: Any, error: str, hopeless: bool = False) -> None:
        self.ledger.fail(trial.config["key"], error, hopeless)
        self.console.print(f"failed {trial.config['name']}: {error}", highlight=False, markup=False)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.ledger.keep_up()
        if self.metrics.due():
            self.metrics.refresh(self.eta())
        self.show()

    def show(self, force: bool = False) -> None:
        """Draws the state, if it is time to."""
        now = self.clock()
        if not force and now - self.shown < (PANEL_SECONDS if self.live else LINE_SECONDS):
            return
        self.shown = now
        if self.live:
            self.live.update(self.panel(), refresh=True)
        else:
            self.console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def line(self) -> str:
        """The state in one line."""
        ledger = self.ledger
        best = f"{ledger.best.score:.4f} ({ledger.best.name})" if ledger.best else "-"
        return (
            f"[{duration(self.clock() - self.started)}] done {ledger.count('done')}/{len(ledger.wanted)}, "
            f"running {ledger.count('running')}, failed {ledger.count('failed')}, "
            f"ETA {duration(self.eta())}, best validation NDCG@10 {best}"
        )

    def panel(self) -> Table:
        """The state and the running runs with their epochs."""
        table = Table(title=Text(self.line()), title_justify="left", show_header=False, box=None)
        for key, run in self.ledger.runs.items():
            if self.ledger.status[key] == "running":
                epoch, epochs = self.epochs.get(key, (0, run_epochs(run.config, run.stage)))
                table.add_row(Text(run.name), f"epoch {epoch}/{epochs}")
        return table

    def eta(self) -> float | None:
        """Seconds to go if every run takes all its epochs; None as long as a stage's cost is unknown.

        An epoch costs what those of the same model on the same data cost so far or, without any, those of its stage.
        """
        ahead = [run for run in self.ledger.missing if self.ledger.status[run.key] in ("pending", "running")]
        to_go = [((stage,), epochs) for stage, epochs in self.ledger.unplanned.items() if epochs]
        for run in ahead:
            epoch, epochs = self.epochs.get(run.key, (0, run_epochs(run.config, run.stage)))
            to_go.append((_alike(run) if self.costs.get(_alike(run)) else (run.stage,), epochs - epoch))
        if not all(self.costs.get(alike) for alike, _ in to_go):
            return None
        means = {alike: sum(self.costs[alike]) / len(self.costs[alike]) for alike in dict(to_go)}  # of each kind once
        left = sum(epochs * means[alike] for alike, epochs in to_go)
        return left / max(min(self.slots, len(ahead)), 1)


def _alike(run: Run) -> tuple[str, ...]:
    """What the cost of an epoch depends on most."""
    config = run.config.quantizer if run.stage == "quantizer" else run.config.recommender
    return run.stage, getattr(config, "kind", ""), run.folder


def run_epochs(config: Any, stage: str) -> int:
    """The most epochs that a stage may take."""
    return config.quantizer.epochs if stage == "quantizer" else config.recommender.epochs


def duration(seconds: float | None) -> str:
    """1:02:03, 2:03, or - for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def reason(trial: Any) -> str:
    """Why a trial failed last: the last line of its error, or what became of its process."""
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    failure = [line.strip() for line in text.rpartition("Failure # ")[2].splitlines() if line.strip()]
    if any(LOW_ON_MEMORY in line for line in failure):
        return "its process was ended, as its machine ran low on memory"
    if any("actor died" in line.lower() or "actor is temporarily unavailable" in line for line in failure):
        return "its process died (killed, out of memory, or the node was lost)"
    return failure[-1] if failure else "no error was reported"
