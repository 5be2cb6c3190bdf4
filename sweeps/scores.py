"""What a store knows of a run's validation scores: of finished runs, of trials, and of what is still being trained."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bbqrec.errors import InputError
from bbqrec.store import Store

log = logging.getLogger(__name__)

SCORE = "valid/ndcg@10"
"""The name under which a run reports it, epoch by epoch."""
NDCG = SCORE.partition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Validation NDCG@10 of a run's epochs so far. `ended`: there will be no more, since it is done or it diverged."""

    scores: tuple[float, ...] = ()
    ended: bool = False
    error: str | None = None
    """Of a run that diverged."""


def selected_score(store: Store, key: str) -> float | None:
    """Validation NDCG@10 that selected a published recommender; None if there is none, or a damaged one.

    It is the score that a run reports while it trains, so that finished and running runs can be compared.
    """
    if not store.has("recommender", key):
        return None
    try:
        row = store.read_json("recommender", key, "row.json")
        return row.get("selected_by", row["scores"]["valid"])[NDCG]
    except InputError as error:
        log.warning("%s", error)
        return None


def known_curve(store: Store, key: str) -> Curve:
    """The longest curve of this recommender in the store: published as a trial or as a run, noted, or checkpointed."""
    for kind in ("trial", "recommender"):
        try:
            if store.has(kind, key):
                lines = store.read_bytes(kind, key, "metrics.jsonl").decode().splitlines()
                return Curve(scores=_scores(map(json.loads, lines)), ended=True)
        except InputError as error:  # it is damaged and un-published by now
            log.warning("%s", error)
    noted = store.load_json(_note(key)) or {"scores": [], "error": None}
    if noted["error"] is not None:
        return Curve(scores=tuple(noted["scores"]), ended=True, error=noted["error"])
    saved = store.load_progress("trial", key)
    reached = () if saved is None else _scores(json.loads(saved.files["log.json"])["metrics"])
    return Curve(scores=max(tuple(noted["scores"]), reached, key=len))


def note_curve(store: Store, key: str, curve: Curve) -> None:
    """Keeps the curve of a trial that was stopped or that diverged, in place of its checkpoints."""
    store.write_json(_note(key), {"scores": list(curve.scores), "error": curve.error})
    store.clear_progress("trial", key)


def _note(key: str) -> str:
    return f"curve/{key}.json"


def _scores(metrics: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(epoch[SCORE] for epoch in metrics)
