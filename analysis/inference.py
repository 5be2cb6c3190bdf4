"""Table 6: seconds per user of TIGER and BBQRec by beam, with the paper's numbers and its ratio beside ours.

inference.json, which sweeps/inference.py writes, holds `about` (profile, device, threads, ...: text and numbers) and
`measurements`: one per data set, method, beam and number of users decoded together.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from analysis.labels import METHOD_LABELS, Label, dataset_label, in_paper_order
from analysis.paper import SOURCE, paper_entry, paper_results
from analysis.tables import ABSENT, Entry, Line, Table
from bbqrec.errors import InputError

NAME = "table6"
FILE = "inference.json"
METHODS = ("tiger", "bbqrec")
PAPER_DATASET = "Beauty"
TITLE = "Inference: seconds per user by beam, for the ten best items, and the ratio BBQRec / TIGER."
SECONDS, PRINTED = "{:#.3g}", "{:.3f}"
RATIO = Label("ratio", "ratio")
AGAIN = "run sweeps/inference.py again"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The median over repetitions, and their extremes. `together` users are decoded at a time, 1 is one by one.

    `weights` says whose they are: "run KEY", or untrained ones.
    """

    dataset: str
    method: str
    beam: int
    together: int
    seconds: float
    low: float
    high: float
    users: int
    repetitions: int
    weights: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What inference.json holds."""

    about: Mapping[str, Any]
    measurements: tuple[Measurement, ...]


def load_measured(path: str | Path) -> Measured:
    """inference.json, or the one in a folder. Raises InputError for a missing file or one of another form."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist", "measure first: python sweeps/inference.py --dataset FOLDER"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({' '.join(str(error).split())})", AGAIN) from error
    if not isinstance(found, dict) or not isinstance(found.get("about"), dict):
        raise InputError(f"{path} says nothing of its measurements", AGAIN)
    lines = found.get("measurements")
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise InputError(f"{path} lists no measurements", AGAIN)
    return Measured(about=found["about"], measurements=tuple(_measurement(line, path) for line in lines))


def table6(measured: Measured) -> Table:
    """A line per data set, number of users decoded together, and beam."""
    found = {(m.dataset, m.together, m.beam, m.method): m for m in measured.measurements}
    groups = []
    for dataset in in_paper_order([m.dataset for m in measured.measurements]):
        places = sorted({(together, beam) for d, together, beam, _ in found if d == dataset})
        lines = [
            Line(
                dataset=dataset_label(dataset) if index == 0 else "",
                metric=f"{'one user' if together == 1 else f'{together} users'}, beam {beam}",
                entries=(*_paper(together, beam), *_ours([found.get((dataset, together, beam, m)) for m in METHODS])),
            )
            for index, (together, beam) in enumerate(places)
        ]
        groups.append(tuple(lines))
    absent = any(e.mean is None for group in groups for line in group for e in line.entries)
    labels = (*(METHOD_LABELS[method] for method in METHODS), RATIO)
    return Table(
        name=NAME,
        title=TITLE,
        conditions=_conditions(measured),
        heads=("Dataset", "Decoding"),
        labels=labels * 2,
        spans=((f"Paper ({PAPER_DATASET})", len(labels)), ("Ours", len(labels))),
        groups=tuple(groups),
        notes=(),
        remarks=(*_remarks(measured), *([f"{ABSENT}: not measured."] if absent else [])),
        repeated=False,
    )


def _measurement(line: Mapping[str, Any], path: Path) -> Measurement:
    values = {}
    for field in fields(Measurement):
        value = line.get(field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, str) if field.type is str else number and 0 < value < float("inf")
        if not right:
            raise InputError(f"{path} has a measurement with {field.name} {value!r}", AGAIN)
        values[field.name] = field.type(value)  # type: ignore[operator]
    if values["method"] not in METHOD_LABELS:
        raise InputError(f"{path} has a measurement of unknown method {values['method']!r}", AGAIN)
    return Measurement(**values)


def _paper(together: int, beam: int) -> list[Entry]:
    """The paper decodes one user at a time."""
    if together != 1:
        return [Entry(mean=None)] * (len(METHODS) + 1)
    metric, labels = f"beam={beam} s/user", [METHOD_LABELS[method].plain for method in METHODS]
    times = [paper_entry(NAME, PAPER_DATASET, metric, label, PRINTED) for label in labels]
    return [*times, _ratio([entry.mean for entry in times], "{:.1f}")]


def _ours(measured: list[Measurement | None]) -> list[Entry]:
    times = [None if m is None else m.seconds for m in measured]
    return [*(Entry(mean=time, form=SECONDS) for time in times), _ratio(times, "{:.2f}")]


def _ratio(times: list[float | None], form: str) -> Entry:
    tiger, bbqrec = times
    return Entry(mean=None if tiger is None or bbqrec is None else bbqrec / tiger, form=form)


def _conditions(measured: Measured) -> str:
    about = measured.about
    words = [f"{about[name]}" for name in ("device", "precision") if about.get(name)]
    if about.get("threads"):
        words.append(f"{about['threads']} CPU thread{'s' if about['threads'] != 1 else ''}")
    if about.get("profile"):
        words.append(f"profile {about['profile']}" + (f" with {about['overrides']}" if about.get("overrides") else ""))
    ours = [f"Ours: {', '.join(words)}."] if words else []
    if measured.measurements:
        ours.append(f"Median of {measured.measurements[0].repetitions} repetitions over {_users(measured)}.")
    return " ".join([f"Paper: {SOURCE}, Table 6, an NVIDIA A800.", *ours])


def _users(measured: Measured) -> str:
    """ "100 users one by one, 6400 users together"."""
    ordered = sorted(measured.measurements, key=lambda m: m.together)
    found = {(m.users, "one by one" if m.together == 1 else "together"): None for m in ordered}
    return ", ".join(f"{users} users {how}" for users, how in found)


def _remarks(measured: Measured) -> Iterator[str]:
    """How far repetitions lie apart, whose weights were measured, and what the paper's text confuses."""
    if not measured.measurements:
        yield "Nothing to show: nothing was measured."
        return
    apart = max(max(m.high - m.seconds, m.seconds - m.low) / m.seconds for m in measured.measurements)
    yield f"Repetitions lie at most {100 * apart:.0f} % from the median."
    weights = {
        (METHOD_LABELS[m.method].plain, dataset_label(m.dataset), m.weights): None for m in measured.measurements
    }
    yield f"Weights: {'; '.join(f'{method} on {dataset}: {whose}' for method, dataset, whose in weights)}."
    if any(whose.startswith("untrained") for _, _, whose in weights):
        yield "Speed does not depend on the weights, but on the IDs that exist: untrained quantizers make other ones."
    if paper_results(NAME):
        yield "The paper's table compares with TIGER; its text says LETTER."
