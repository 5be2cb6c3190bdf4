"""Two stored runs side by side: which fields differ, and what that means in sentences."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbqrec.errors import InputError
from bbqrec.metrics import user_scores
from bbqrec.run_details import config_of
from bbqrec.run_registry import NDCG, Registry, StoredRun, at, flat

ALWAYS_DIFFERENT = ("started", "finished", "sources")
"""Of the provenance: what differs between any two runs says nothing."""
JUDGED = {
    "quantizer": ("collisions", "codebook"),
    "recommender": ("scores", "selected_by", "collisions", "id_collisions"),
    "trial": ("selected_by",),
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field of two runs; None where one does not have it."""

    field: str
    one: Any
    other: Any

    @property
    def change(self) -> float | None:
        """From the one to the other, of numbers."""
        pair = (self.one, self.other)
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in pair):
            return None
        return self.other - self.one


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs, by group, and the sentences."""

    groups: Mapping[str, list[Difference]]
    statements: list[str]


def compare(registry: Registry, one: StoredRun, other: StoredRun) -> Comparison:
    """Two quantizers, or two recommenders or trials. Raises InputError if one is not finished, or for one of each."""
    for run in (one, other):
        if not run.row:
            why = f"is {run.state}" + (f" ({run.damage})" if run.damage else "")
            raise InputError(f"{run.kind} {run.key} {why}: there is nothing to compare", "name two finished runs")
    if (one.kind == "quantizer") != (other.kind == "quantizer"):
        raise InputError(
            f"{one.key} is a {one.kind}, {other.key} a {other.kind}",
            "name two runs of one stage: see `bbqrec runs list`",
        )
    data = [dict(zip(("dataset", "seed"), registry.data(run), strict=True)) for run in (one, other)]
    for about, run in zip(data, (one, other), strict=True):
        about |= {name: run.row.get(name) for name in ("fingerprint", "quantizer_key", "teacher_key")}
    configs = [flat(config_of(run, registry)) for run in (one, other)]
    judged = [_judged(run) for run in (one, other)]
    groups = {
        "run": differences(*data),
        "config": differences(*configs),
        "provenance": differences(*(_provenance(run) for run in (one, other))),
        "scores": differences(*judged),
        "costs": differences(*(_numbers(run.row.get("costs")) for run in (one, other))),
    }
    statements = [_about_data(data), _about_config(groups["config"], one, other)]
    paired = _about_scores(registry, one, other)
    return Comparison(groups=groups, statements=[text for text in (*statements, *paired) if text])


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """The fields in which they differ, in the order of the first."""
    return [
        Difference(field=name, one=one.get(name), other=other.get(name))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def _about_data(data: list[dict[str, Any]]) -> str:
    """Older quantizers do not say what they were trained on."""
    prints = [about["fingerprint"] for about in data]
    if None in prints:
        same = data[0]["dataset"] == data[1]["dataset"]
        names = f"data sets of the name {data[0]['dataset']}" if same else "data sets of different names"
    else:
        names = f"the same data set ({data[0]['dataset']})" if prints[0] == prints[1] else "different data sets"
    seeds = [about["seed"] for about in data]
    seed = f"the same seed ({seeds[0]})" if seeds[0] == seeds[1] else f"seeds {seeds[0]} and {seeds[1]}"
    quantizers = [about["quantizer_key"] for about in data]
    shared = f", the same quantizer ({quantizers[0]})" if quantizers[0] and quantizers[0] == quantizers[1] else ""
    return f"{names}, {seed}{shared}"


def _about_config(found: list[Difference], one: StoredRun, other: StoredRun) -> str:
    if not found:
        same = one.key == other.key
        return "no field of the config differs" + ("" if same else ": another data set, seed, or version of the stage")
    stages = sorted({difference.field.partition(".")[0] for difference in found})
    number = f"{len(found)} field{'' if len(found) == 1 else 's'}"
    shown = ", ".join(f"{d.field} {d.one} -> {d.other}" for d in found[:3])
    return f"{number} of the config of {' and '.join(stages)}: {shown}{', ...' if len(found) > 3 else ''}"


def _about_scores(registry: Registry, one: StoredRun, other: StoredRun) -> list[str]:
    """The test scores and, over the users of one data set, what lies between them."""
    values = [at(run.row, "scores", "test", NDCG) for run in (one, other)]
    if not all(isinstance(value, float) for value in values):
        return []
    said = [f"test NDCG@10 {values[0]:.4f} -> {values[1]:.4f} ({values[1] - values[0]:+.4f})"]
    ranks = [_ranks(registry.bytes_of(run, "ranks_test.npy")) for run in (one, other)]
    data = [at(run.row, "fingerprint") for run in (one, other)]
    if any(found is None for found in ranks) or data[0] != data[1] or len(ranks[0]) != len(ranks[1]):
        return said
    gain = user_scores(ranks[1], NDCG) - user_scores(ranks[0], NDCG)
    spread = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float("nan")
    said.append(
        f"user by user ({len(gain)}): {gain.mean():+.4f}, 95 % interval {gain.mean() - spread:+.4f} to "
        f"{gain.mean() + spread:+.4f}; {int((gain > 0).sum())} gain, {int((gain < 0).sum())} lose, "
        f"{int((gain == 0).sum())} stay"
    )
    return said


def _ranks(data: bytes | None) -> Any:
    try:
        found = None if data is None else np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return found if isinstance(found, np.ndarray) and found.ndim == 1 and len(found) else None


def _judged(run: StoredRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in JUDGED[run.kind]:
        found |= {f"{name}.{field}": value for field, value in _numbers(run.row.get(name)).items()}
    return found


def _provenance(run: StoredRun) -> dict[str, Any]:
    found = run.row.get("provenance")
    found = flat(found) if isinstance(found, Mapping) else {}
    return {name: value for name, value in found.items() if name not in ALWAYS_DIFFERENT}


def _numbers(group: Any) -> dict[str, Any]:
    return flat(group) if isinstance(group, Mapping) else {}
