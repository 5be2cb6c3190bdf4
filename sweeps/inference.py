"""Seconds per user of the generators: TIGER and BBQRec, beams of 50 and 100, one user at a time and in batches.

    python sweeps/inference.py                                       embedded synthetic data set, profile tiny
    python sweeps/inference.py --dataset data/beauty --profile paper --store runs --out out/inference

Feeds Table 6. Measures the runs that `bbqrec train` or a study has finished in the store with the same data set,
profile, seed and overrides; of a run that is not there the untrained model, which is as fast: only the IDs that exist,
and with them the trie, are other ones. One process without Ray, on the GPU if there is one. Cost: the two models'
decoding of a few hundred users, some minutes on a CPU.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from rich.console import Console

from analysis.inference import FILE, METHODS, Measured, Measurement
from analysis.report import write_inference
from bbqrec.artefacts import load_codes
from bbqrec.config import QuantizerConfig, RecommenderConfig
from bbqrec.data import batches, load_dataset, require_targets
from bbqrec.decoding import item_lists
from bbqrec.errors import InputError
from bbqrec.evaluation import BEAMS_IN_FLIGHT
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.generation import generate
from bbqrec.methods import run_config
from bbqrec.native import keep_freed_memory
from bbqrec.provenance import provenance, source_state
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommendation import load_task
from bbqrec.run import RunConfig
from bbqrec.schema import Codes, Dataset
from bbqrec.stages import resolve_device
from bbqrec.store import Store
from bbqrec.tasks import GenerativeTask, build_task
from bbqrec.training import epoch_generator
from sweeps.command import embedded, main
from sweeps.command_line import overrides

SHOWN = 10
"""Items of a list, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Seconds per user of TIGER and BBQRec: Table 6. Finished runs if the store has them, else untrained models.

    Example: python sweeps/inference.py --dataset data/beauty --profile paper --users 200 --together 64
    """

    dataset: Path | None = None
    """Folder written by `bbqrec prepare`. Default: the embedded synthetic data set, generated when first needed."""
    profile: str | None = None
    """Sizes: paper, small or tiny. Default: tiny for the embedded data set, else small."""
    seed: int = 0
    """Seed of the runs."""
    set: tuple[str, ...] = ()
    """Fields of the config to override, as they were for the runs."""
    store: str = "runs"
    """Folder or URL of the results."""
    beams: tuple[int, ...] = (50, 100)
    """Beams to measure."""
    together: int = 64
    """Users decoded at a time in the batched measurement, which stands beside that of one at a time."""
    users: int = 100
    """Users to decode, drawn from the data set; the batched measurement takes as many times --together of them, where
    there are so many."""
    repetitions: int = 5
    """Of each measurement, in turns between the methods; the median counts. A first one warms up."""
    threads: int | None = None
    """CPU threads. Default: torch's."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to decode; auto takes the GPU if there is one."""
    out: Path = Path("out/inference")
    """Folder of inference.json and the table."""

    name = "inference"

    def run(self, console: Console, command: str) -> int:
        """Exit status 0."""
        for option, value in self.at_least_one().items():
            if value < 1:
                raise InputError(f"--{option} {value} measures nothing", "give 1 or more")
        if not self.beams:
            raise InputError("--beams names none", "give for instance --beams 50 100")
        device = resolve_device(self.device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        keep_freed_memory()
        store = Store(self.store, writable=self.dataset is None)  # the embedded data set lies there
        dataset = load_dataset(self.dataset or embedded(store))
        require_targets(dataset)
        profile, asked = self.profile or ("small" if self.dataset else "tiny"), overrides(self.set)
        runs = {method: run_config(method, dataset, self.seed, profile, asked) for method in METHODS}
        try:
            self.out.mkdir(parents=True, exist_ok=True)  # a bad place is to be known before the work is done
        except OSError as error:
            raise InputError(f"cannot write {self.out} ({error.strerror})", "give a writable --out folder") from error
        tasks: dict[str, tuple[GenerativeTask, str]] = {}
        for method, run in runs.items():
            task, weights = load(run, store, dataset, device)
            tasks[method] = task, weights
            console.print(f"{method}: {weights}", highlight=False, markup=False, soft_wrap=True)
        about = {
            **{name: value for name, value in provenance(device, source_state()).items() if name != "host"},
            "device": device_name(device),
            "command": command,
            "profile": profile,
            "overrides": " ".join(self.set),
        }
        measured = Measured(about=about, measurements=tuple(self.measured(tasks, dataset, device)))
        (self.out / FILE).write_text(json.dumps(asdict(measured), indent=1) + "\n", encoding="utf-8")
        write_inference(self.out, self.out)
        console.print((self.out / "table6.md").read_text(), highlight=False, markup=False, soft_wrap=True)
        console.print(f"measurements: {(self.out / FILE).resolve()}", highlight=False, markup=False, soft_wrap=True)
        return 0

    def at_least_one(self) -> dict[str, int]:
        """The numbers that must be positive, by option."""
        names = ("together", "users", "repetitions")
        beams = {"beams": min(self.beams, default=1)}
        threads = {} if self.threads is None else {"threads": self.threads}
        return {name: getattr(self, name) for name in names} | beams | threads

    def measured(
        self, tasks: dict[str, tuple[GenerativeTask, str]], dataset: Dataset, device: torch.device
    ) -> list[Measurement]:
        """Each beam, one user at a time and together; the methods take turns, so that a busy machine slows both."""
        found = []
        for together in dict.fromkeys((1, self.together)):
            for beam in dict.fromkeys(self.beams):
                size = min(together, max(1, BEAMS_IN_FLIGHT // beam))  # what evaluation holds at most
                turns = {}
                for method, (task, _) in tasks.items():
                    examples = evaluation_examples(dataset, "test", task.config.max_history)
                    drawn = np.random.default_rng(0).permutation(len(examples.history))[: self.users * size]
                    turns[method] = decoding(task, examples, drawn, beam, size, device)
                    users = len(drawn)
                seconds = alternate(turns, self.repetitions)
                found += [
                    Measurement(
                        dataset=dataset.name,
                        method=method,
                        beam=beam,
                        together=size,
                        seconds=statistics.median(times) / users,
                        low=min(times) / users,
                        high=max(times) / users,
                        users=users,
                        repetitions=len(times),
                        weights=tasks[method][1],
                    )
                    for method, times in seconds.items()
                ]
        return found


def load(run: RunConfig, store: Store, dataset: Dataset, device: torch.device) -> tuple[GenerativeTask, str]:
    """The finished run or, if the store lacks it, its untrained model; and whose weights they are."""
    if store.has("recommender", run.recommender_key):
        task, weights = load_task(run, store, dataset, device), f"run {run.recommender_key}"
    else:
        codes, whose = _codes(run, store, dataset, device)
        task, weights = build_task(run.recommender, dataset, codes, run.seed, device), f"untrained, {whose}"
    assert isinstance(task, GenerativeTask)
    task.model.eval()
    return task, weights


def _codes(run: RunConfig, store: Store, dataset: Dataset, device: torch.device) -> tuple[Codes, str]:
    """Those of the run's quantizer or, if the store lacks it, of k-means on its untrained latents."""
    assert isinstance(run.quantizer, QuantizerConfig) and isinstance(run.recommender, RecommenderConfig)
    if store.has("quantizer", str(run.quantizer_key)):
        return load_codes(run, store), f"IDs of quantizer {run.quantizer_key}"
    trainer = QuantizerTrainer(run.quantizer, dataset, run.seed, device)
    trainer.start_codebook(epoch_generator(run.seed, 0))
    return trainer.model.codes(dataset.num_items), "IDs of an untrained quantizer"


def decoding(
    task: GenerativeTask, examples: Examples, rows: np.ndarray, beam: int, together: int, device: torch.device
) -> Callable[[], float]:
    """A turn: decode these users' lists, `together` at a time in batches of similar lengths, as evaluation does.

    It returns the seconds that it took.
    """
    cut = [rows[chosen] for chosen in batches(examples.lengths[rows], together, None)]
    histories = [examples.batch(chosen, device).history for chosen in cut]

    def turn() -> float:
        begun = time.perf_counter()
        for history in histories:
            item_lists(generate(task.model, task.trie, history, beam), task.trie, SHOWN)  # on the CPU: all is done
        return time.perf_counter() - begun

    return turn


def alternate(turns: dict[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """The seconds of each turn, in turns, after one round that warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(repetitions + 1):
        for name, turn in turns.items():
            took = turn()
            if number > 0:
                seconds[name].append(took)
    return seconds


def device_name(device: torch.device) -> str:
    """The GPU, or the kind of CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return kind or platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(Inference))
