"""The command `bbqrec`: a subcommand parses, calls one function and prints. Torch is imported only where it is used."""

import io
import logging
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo
from tyro.extras import SubcommandApp

import bbqrec
from bbqrec.cli_prepare import Download, Sha256, prepare_app
from bbqrec.cli_runs import runs_app
from bbqrec.errors import InputError

RunKey = Annotated[str, tyro.conf.arg(name="run")]

if TYPE_CHECKING:
    from bbqrec.schema import EpochReport
    from bbqrec.store import Store

app = SubcommandApp()
app.command(prepare_app, name="prepare", help="Turn raw data into a data set folder and print its counts.")
app.command(name="download")(Download)
app.command(runs_app, name="runs", help="What a store holds: list, show and compare runs, prune leftovers.")


@app.command(name="train")
@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one method on one data set: quantizer, recommender, scores. The same command resumes what was cut off.

    Example: bbqrec train --dataset data/toys --method bbqrec --profile small --store runs --set recommender.epochs=3
    """

    dataset: Path
    """Folder written by `bbqrec prepare`."""
    method: str = "bbqrec"
    """One of `bbqrec methods`."""
    profile: str = "small"
    """Sizes: paper, small (trains on two CPU cores) or tiny (for the synthetic data)."""
    seed: int = 0
    """Seed of every random number of the run."""
    store: str = "runs"
    """Folder or URL (s3://bucket/path) of the results; what it holds already is not computed again."""
    set: dict[str, str] = field(default_factory=dict)
    """Fields of the config to override, for instance recommender.epochs=3 quantizer.levels=4."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one."""

    def run(self) -> None:
        from bbqrec.data import load_dataset
        from bbqrec.methods import run_config
        from bbqrec.native import keep_freed_memory
        from bbqrec.stages import resolve_device, run_all
        from bbqrec.store import Store

        if self.seed < 0:
            raise InputError(f"seed={self.seed} is negative", "give 0 or more")
        resolve_device(self.device)
        keep_freed_memory()
        dataset = load_dataset(self.dataset)
        run = run_config(self.method, dataset, self.seed, self.profile, self.set)
        store, attempt = Store(self.store), uuid.uuid4().hex[:12]
        _print(f"{self.method} on {dataset.name}, seed {self.seed}: run {run.recommender_key}")
        if store.has("recommender", run.recommender_key):
            _print(f"the store holds run {run.recommender_key}: nothing is computed")
        for report in run_all(run, dataset, store, attempt=attempt, device=self.device):
            _print(epoch_line(report))
        _print_scores(store.read_json("recommender", run.recommender_key, "row.json")["scores"])
        _print(f"run {run.recommender_key}")


@app.command(name="evaluate")
@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Print the scores of a finished run, after computing them again from its users' ranks.

    Example: bbqrec evaluate --store runs --run 0123456789abcdef
    """

    run_key: RunKey
    """Key that `bbqrec train` printed."""
    store: str = "runs"
    """Folder or URL of the results."""

    def run(self) -> None:
        from bbqrec.metrics import scores

        store = _store_with(self.store, self.run_key)
        recorded = store.read_json("recommender", self.run_key, "row.json")["scores"]
        found = {}
        for split in recorded:
            ranks = store.read_bytes("recommender", self.run_key, f"ranks_{split}.npy")
            found[split] = scores(np.load(io.BytesIO(ranks), allow_pickle=False))
            for metric, value in recorded[split].items():
                if not np.isclose(found[split][metric], value, rtol=0, atol=1e-9):
                    what = f"{split} {metric} of run {self.run_key} is {value}, but {found[split][metric]} by its ranks"
                    raise InputError(what, "train it again in another --store")
        _print_scores(found)


@app.command(name="recommend")
@dataclass(frozen=True, kw_only=True)
class Recommend:
    """Print the items that a finished run recommends to a user: ID, title and score.

    Example: bbqrec recommend --store runs --run 0123456789abcdef --dataset data/toys --user A1YJEY40YUW4SE -k 5
    """

    run_key: RunKey
    """Key that `bbqrec train` printed."""
    user: str
    """User ID as in the raw data."""
    dataset: Path
    """Folder of the data set that the run was trained on."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Number of items."""
    store: str = "runs"
    """Folder or URL of the results."""

    def run(self) -> None:
        if self.k < 1:
            raise InputError(f"k={self.k} is too small", "give at least 1")
        store = _store_with(self.store, self.run_key)
        from bbqrec.data import load_dataset
        from bbqrec.recommendation import recommend

        table = Table("item", "title", "score")
        for item, title, score in recommend(store, self.run_key, load_dataset(self.dataset), self.user, self.k):
            table.add_row(Text(item), Text(title), f"{score:.4f}")
        _print(table)


@app.command(name="methods")
@dataclass(frozen=True, kw_only=True)
class Methods:
    """List every method with its label in the tables."""

    def run(self) -> None:
        from bbqrec.methods import METHODS

        table = Table("method", "label", "tables")
        for name, method in METHODS.items():
            table.add_row(name, method.label, ", ".join(method.table))
        _print(table)


def epoch_line(report: "EpochReport") -> str:
    """The epoch's metrics but the usage of every codebook, which `metrics.jsonl` of the run holds."""
    shown = {n: v for n, v in report.metrics.items() if not n.startswith(("codes/perplexity", "codes/used"))}
    values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{report.stage} {report.epoch}/{report.epochs}  {values}"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        app.cli(prog="bbqrec", description=bbqrec.__doc__, args=args, registry=_PAIRS).run()
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as before `| head`
        sys.stdout = None
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _print(line: object) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _print_scores(scores: Mapping[str, Mapping[str, float]]) -> None:
    """A row per split, a column per metric."""
    table = Table("split", *next(iter(scores.values())))
    for split, values in scores.items():
        table.add_row(split, *(f"{v:.4f}" for v in values.values()))
    _print(table)


def _store_with(url: str, run_key: str) -> "Store":
    """The store, if it holds that finished run. Nothing is created for a misspelt path."""
    from bbqrec.store import Store

    if "://" not in url and not Path(url).is_dir():
        raise InputError(f"store {url} does not exist", "give the --store that the run was trained with")
    store = Store(url, writable=False)
    finished = store.keys("recommender")
    if run_key not in finished:
        known = ", ".join(_described(store, key) for key in finished)
        remedy = f"use one of {known}" if known else "train one with `bbqrec train`"
        raise InputError(f"store {url} has no finished run {run_key!r}", remedy)
    return store


def _described(store: "Store", run_key: str) -> str:
    """A run's key with its data set and seed, if its row can be read."""
    try:
        row = store.read_json("recommender", run_key, "row.json")
    except InputError:
        return f"{run_key} (damaged)"
    return f"{run_key} ({row['dataset']}, seed {row['seed']})"


_PAIRS = ConstructorRegistry()
"""NAME=VALUE arguments, for instance text=vectors.npz or recommender.epochs=3."""
_EXAMPLES = {
    Path: "text=vectors.npz",
    str: "recommender.epochs=3",
    Sha256: "reviews_Toys_and_Games_5.json.gz=SHA256",
}
"""By the type of the value, which tells the options apart."""


@_PAIRS.primitive_rule
def _pairs(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict] | None:
    if get_origin(info.type) is not dict:
        return None
    value_type = get_args(info.type)[1]
    example = _EXAMPLES[value_type]

    def parse(words: list[str]) -> dict:
        pairs = {}
        for word in words:
            name, sign, value = word.partition("=")
            if not (name and sign and value):
                raise InputError(f"{word!r} is not of the form NAME=VALUE", f"write it without spaces, as in {example}")
            if name in pairs:
                raise InputError(f"{name} is given twice", "give it once")
            pairs[name] = value_type(value)
        return pairs

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME=VALUE ...]",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f"{name}={item}" for name, item in value.items()],
    )
