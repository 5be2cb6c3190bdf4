"""What a store knows about a plan before it starts: which studies share its runs, and how long past runs took."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bbqrec.config import to_json
from bbqrec.errors import InputError
from bbqrec.store import Store
from sweeps.study import Plan, Run

log = logging.getLogger(__name__)

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Past:
    """One stage of a finished run: what it was of, and what it took. `config` has plain JSON types."""

    kind: str
    fingerprint: str
    config: Mapping[str, Any]
    seconds: float
    epochs: int


def shared_with(plan: Plan, store: Store) -> dict[str, int]:
    """Key of every other study in the store -> how many of the plan's unique runs are its runs, too; never 0.

    Damaged study files are left out.
    """
    found = {}
    for name in store.json_names("study"):
        if name in (plan.key, plan.study.name):
            continue
        try:
            described = store.load_json(f"study/{name}.json")
            if described["key"] != name:
                continue  # a study's plain name is a copy of its latest
            keys = {cell.get(field) for cell in described["cells"] for field in ("run_key", "quantizer_key")}
        except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("study %s tells nothing of its runs: %s", name, error)
            continue
        if common := keys & set(plan.runs):
            found[name] = len(common)
    return found


def past_runs(store: Store) -> list[Past]:
    """Both stages of every recommender in the store. Damaged rows are left out."""
    found: dict[str, Past] = {}
    for key in store.keys("recommender"):
        try:
            row = store.read_json("recommender", key, "row.json")
            found |= dict(_stages_of(row))
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("run %s tells nothing of its cost: %s", key, error)
    return list(found.values())


def estimate(run: Run, past: list[Past]) -> float | None:
    """Seconds that a run will take: those of the past runs on the same data whose configs differ least from its own.

    Scaled by the epochs where these differ, so for a run that stops early rather too many. None if there are none.
    """
    config = run.config.quantizer if run.stage == "quantizer" else run.config.recommender
    assert config is not None, run.name
    own = to_json(config)
    alike = [p for p in past if p.kind == config.kind and p.fingerprint == run.config.fingerprint and p.epochs]
    if not alike:
        return None
    distance = [sum(own.get(field) != p.config.get(field) for field in own if field != "epochs") for p in alike]
    nearest = [p for p, far in zip(alike, distance, strict=True) if far == min(distance)]
    seconds = [
        p.seconds if p.config.get("epochs") == own["epochs"] else p.seconds / p.epochs * own["epochs"] for p in nearest
    ]
    return sum(seconds) / len(seconds)


def outlook(plan: Plan, store: Store) -> str:
    """Shared runs and expected hours of computing, a line each; "" if there is nothing to say."""
    lines = [f"shared with study {name}: {count} of the runs" for name, count in shared_with(plan, store).items()]
    if plan.missing:
        past = past_runs(store)
        known = [seconds for run in plan.missing if (seconds := estimate(run, past)) is not None]
        unknown = len(plan.missing) - len(known)
        told = f"about {_hours(sum(known))} of computing by the costs of past runs" if known else ""
        silent = f"no past run on this data tells of {unknown} of the {len(plan.missing)} runs" if unknown else ""
        lines.append(f"to compute: {'; '.join(filter(None, (told, silent)))}")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    return f"{seconds / SECONDS_PER_HOUR:.1f} h" if seconds >= SECONDS_PER_HOUR else f"{seconds / 60:.1f} min"


def _stages_of(row: Mapping[str, Any]) -> Iterator[tuple[str, Past]]:
    kinds = row["config"].get("kinds") or {"quantizer": "quantizer", "recommender": "recommender"}
    for stage, kind in kinds.items():
        if kind is None:
            continue
        costs = row["costs"]
        yield (
            row["run_key"] if stage == "recommender" else row["quantizer_key"],
            Past(
                kind=kind,
                fingerprint=row["fingerprint"],
                config=row["config"][stage],
                seconds=float(costs[f"{stage}_seconds"]),
                epochs=int(costs[f"{stage}_epochs"]),
            ),
        )
