"""What a study and its runs are doing, as metrics of Ray: Prometheus reads them where it reads Ray's own.

The driver publishes what concerns the study, each run's first worker what concerns the run. Ray forgets a gauge that
nobody has set for a while, so each is set again and again until its `Publisher` is closed: it is there as long as what
it is about. Nothing here ever fails a run. The table of all metrics: docs/metrics.md.
"""

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, Self

import ray
from ray.util import metrics as ray_metrics

from sweeps.ledger import Ledger, Status
from sweeps.scores import SCORE
from sweeps.study import Run
from sweeps.tuning_ledger import TuningLedger

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
"""Between two settings of a gauge: less than the interval at which Ray exports, 1 s or more and by default 10 s."""
COUNT_SECONDS = 2.0
"""Between two looks at the whole ledger, which take a moment in a large study."""
STATES: tuple[Status, ...] = ("pending", "running", "done", "failed")
CODES = re.compile(r"codes/(used|perplexity)_(\d+)_(\w+)")


@dataclass(frozen=True)
class Metric:
    """A metric as it is declared to Ray, which puts `ray_` before its name."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    tags: tuple[str, ...]
    meaning: str


OF_STUDY = ("study",)
OF_METHOD = ("study", "stage", "method", "dataset")
OF_RUN = ("study", "stage", "method", "dataset", "seed", "run", "key")

METRICS = {
    metric.name: metric
    for metric in (
        Metric("bbqrec_study_runs", "gauge", "runs", (*OF_STUDY, "state"), "Runs of the study in each state"),
        Metric("bbqrec_study_eta_seconds", "gauge", "s", OF_STUDY, "Time left if every run takes all its epochs"),
        Metric(
            "bbqrec_study_best_score",
            "gauge",
            "NDCG@10",
            (*OF_STUDY, "method", "dataset"),
            "Best validation score of any run of the method so far",
        ),
        Metric("bbqrec_epochs_total", "counter", "epochs", OF_METHOD, "Epochs that runs have reported"),
        Metric("bbqrec_retries_total", "counter", "retries", OF_METHOD, "Times that a run was tried again"),
        Metric("bbqrec_run_epoch", "gauge", "epochs", OF_RUN, "Epochs of the run that are over"),
        Metric("bbqrec_run_epochs", "gauge", "epochs", OF_RUN, "Epochs that the run may take"),
        Metric("bbqrec_run_epochs_per_second", "gauge", "1/s", OF_RUN, "Speed of the run's last epoch"),
        Metric("bbqrec_run_loss", "gauge", "", (*OF_RUN, "term"), "Mean loss of the last epoch, in all and by term"),
        Metric("bbqrec_run_score", "gauge", "NDCG@10", OF_RUN, "Validation score of the last epoch"),
        Metric(
            "bbqrec_codebook_used",
            "gauge",
            "codes",
            (*OF_RUN, "level", "component"),
            "Codes of the level that the component chose in the last epoch",
        ),
        Metric(
            "bbqrec_codebook_perplexity",
            "gauge",
            "codes",
            (*OF_RUN, "level", "component"),
            "Codes in effective use: exp of the entropy of the choices",
        ),
        Metric("bbqrec_codebook_restarted", "gauge", "codes", OF_RUN, "Unused codes that start again after the epoch"),
        Metric("bbqrec_codebook_colliding_items", "gauge", "items", OF_RUN, "Items that share their semantic ID"),
    )
}


class Publisher:
    """Sets gauges again and again, with the same tags beside their own, between entering and leaving the block.

    Without Ray, and after the first error of Ray, it does nothing.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self.tags = dict(tags)
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.on = ray.is_initialized()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self.on:
            threading.Thread(target=self._keep, name="bbqrec-metrics", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over.set()
            self.gauges.clear()

    def set(self, name: str, value: float | None, **tags: str) -> None:
        """A gauge's value from now on. None: it has none any more."""
        key = (name, tuple(tags.items()))
        with self._lock:
            if value is None or self._over.is_set():
                self.gauges.pop(key, None)
            else:
                self.gauges[key] = value
                self._record(name, value, tags)

    def count(self, name: str, **tags: str) -> None:
        """One more."""
        self._record(name, 1, tags)

    def _keep(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            with self._lock:
                for (name, tags), value in self.gauges.items():
                    self._record(name, value, dict(tags))

    def _record(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        if not self.on:
            return
        try:
            metric = _declared(name)
            own = {tag: text for tag, text in self.tags.items() if tag in METRICS[name].tags} | dict(tags)
            metric.set(value, own) if METRICS[name].kind == "gauge" else metric.inc(value, own)
        except Exception as error:  # of whatever kind: a number on a page is worth no run
            self.on = False
            log.debug("metrics are off: %s", error)


@lru_cache(maxsize=len(METRICS))
def _declared(name: str) -> Any:
    """The metric of this process."""
    metric = METRICS[name]
    kind = ray_metrics.Gauge if metric.kind == "gauge" else ray_metrics.Counter
    # Prometheus puts _total behind a counter's name by itself.
    return kind(name.removesuffix("_total"), description=metric.meaning, tag_keys=metric.tags)


class StudyMetrics(Publisher):
    """Published by the driver: the state of a ledger's runs."""

    def __init__(self, ledger: Ledger | TuningLedger) -> None:
        super().__init__({"study": ledger.name})
        self.ledger = ledger
        self.refreshed = float("-inf")
        self.best: dict[tuple[str, str], float] = {}
        if isinstance(ledger, Ledger):
            for key, score in ledger.plan.scores.items():
                self._score(ledger.runs[key], score)

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """An epoch of the run is over."""
        self.count("bbqrec_epochs_total", **_kind_of(run))
        if SCORE in result:
            self._score(run, result[SCORE])

    def retry(self, run: Run) -> None:
        """The run is tried again."""
        self.count("bbqrec_retries_total", **_kind_of(run))

    def due(self) -> bool:
        """Whether it is time to look at the ledger again."""
        return self.on and time.monotonic() - self.refreshed >= COUNT_SECONDS

    def refresh(self, eta: float | None) -> None:
        """Publishes the ledger's counts and the time left in seconds."""
        self.refreshed = time.monotonic()
        for state in STATES:
            self.set("bbqrec_study_runs", self.ledger.count(state), state=state)
        self.set("bbqrec_study_eta_seconds", eta)

    def _score(self, run: Run, score: float) -> None:
        kind = (run.method, run.config.dataset)
        if score > self.best.get(kind, float("-inf")):
            self.best[kind] = score
            self.set("bbqrec_study_best_score", score, method=kind[0], dataset=kind[1])


class RunMetrics(Publisher):
    """Published by the first worker of a run: its epochs. `config` is that of its trial."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        tags = {"study": config["study"], "stage": config["stage"], "method": config["method"]}
        tags |= {"dataset": config["run"]["dataset"], "seed": str(config["run"]["seed"])}
        super().__init__(tags | {"run": config["name"], "key": config["key"]})
        self.begun = time.monotonic()

    def report(self, result: Mapping[str, Any]) -> None:
        """An epoch of the run is over, with these numbers."""
        now = time.monotonic()
        self.set("bbqrec_run_epoch", result["epoch"])
        self.set("bbqrec_run_epochs", result["epochs"])
        self.set("bbqrec_run_epochs_per_second", 1 / max(now - self.begun, 1e-6))
        self.begun = now
        self.set("bbqrec_run_score", result.get(SCORE))
        self.set("bbqrec_codebook_restarted", result.get("restarted_codes"))
        self.set("bbqrec_codebook_colliding_items", result.get("codes/colliding_items"))
        for name, value in result.items():
            if name == "loss" or name.startswith("loss/"):
                self.set("bbqrec_run_loss", value, term=name.removeprefix("loss/").replace("loss", "total"))
            elif found := CODES.fullmatch(name):
                metric = f"bbqrec_codebook_{found[1]}"
                self.set(metric, value, level=str(int(found[2]) + 1), component=found[3])

    def __exit__(self, *error: Any) -> None:
        """A run that is over is not fast any more; Ray would tell its last speed for some seconds."""
        self.set("bbqrec_run_epochs_per_second", 0.0)
        super().__exit__(*error)


def _kind_of(run: Run) -> dict[str, str]:
    return {"stage": run.stage, "method": run.method, "dataset": run.config.dataset}
