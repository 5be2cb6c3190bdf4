"""A stored run in a line, and all that the store says of it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bbqrec.errors import InputError
from bbqrec.run_registry import NDCG, Registry, StoredRun, at

SUMMARY = (
    "key",
    "kind",
    "method",
    "dataset",
    "seed",
    "setting",
    "valid",
    "test",
    "seconds",
    "finished",
    "commit",
    "dirty",
    "status",
    "epoch",
    "modified",
    "damage",
)
"""Of a run in a list: setting is what a study varied for it, valid and test are NDCG@10, seconds those of work.

`modified` is when its files last changed."""


def summary(run: StoredRun, registry: Registry) -> dict[str, Any]:
    """SUMMARY of a run; None for what the store does not say."""
    dataset, seed = registry.data(run)
    selected = at(run.row, "selected_by", NDCG) if run.kind == "trial" else at(run.row, "scores", "valid", NDCG)
    values = (
        run.key,
        run.kind,
        ", ".join(registry.methods(run)) or None,
        dataset,
        seed,
        _setting(run),
        _number(selected),
        _number(at(run.row, "scores", "test", NDCG)),
        seconds(run),
        _text(at(run.row, "provenance", "finished")),
        _text(at(run.row, "provenance", "commit")),
        at(run.row, "provenance", "dirty") is True,
        run.state,
        run.epoch if run.state == "in progress" else _epochs(run),
        datetime.fromtimestamp(run.modified, UTC).isoformat(timespec="seconds"),
        run.damage,
    )
    return dict(zip(SUMMARY, values, strict=True))


def listed(
    registry: Registry, kind: str = "all", datasets: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The summaries of the runs of a kind, of any of the data sets and of any of the methods, sorted.

    A method is also found by the kind of its config. Raises InputError for a data set or method that no run has.
    """
    found = [(run, summary(run, registry)) for run in registry.runs if kind in ("all", run.kind)]
    own = {run.key: registry.methods(run) for run, _ in found}
    for what, wanted, known in (
        ("data set", datasets, {line["dataset"] for _, line in found}),
        ("method", methods, {name for names in own.values() for name in names}),
    ):
        for name in wanted:
            if name not in known:
                there = ", ".join(sorted(filter(None, known))) or "of none"
                raise InputError(f"store {registry.files.url} has no run of {what} {name!r}", f"it has runs of {there}")
    lines = [
        line
        for run, line in found
        if (not datasets or line["dataset"] in datasets) and (not methods or set(own[run.key]) & set(methods))
    ]
    names = ("dataset", "kind", "method")
    return sorted(lines, key=lambda line: (*(line[n] or "" for n in names), line["seed"] or 0, line["key"]))


def details(run: StoredRun, registry: Registry) -> dict[str, Any]:
    """Everything of a run: where it belongs, scores, costs, provenance, files, config, and who else it concerns."""
    line = summary(run, registry)
    config = config_of(run, registry)
    concerned = {
        "studies": [
            " ".join(map(str, filter(None, (c.study, c.role, c.dataset, c.method, f"seed {c.seed}", c.setting))))
            for c in run.cells
        ]
    }
    if run.kind == "quantizer":
        concerned["read by"] = [_reference(reader, registry) for reader in registry.readers(run.key)]
    elif run.quantizer_key is not None:
        stored = [_reference(r, registry) for r in registry.runs if (r.kind, r.key) == ("quantizer", run.quantizer_key)]
        concerned["quantizer"] = stored or [f"{run.quantizer_key} is not in the store"]
        others = [r for r in registry.readers(run.quantizer_key) if r is not run]
        concerned["shares its quantizer with"] = [_reference(reader, registry) for reader in others]
    teacher = at(run.row, "teacher_key")
    if isinstance(teacher, str):
        stored = [_reference(r, registry) for r in registry.runs if (r.kind, r.key) == ("recommender", teacher)]
        concerned["teacher"] = stored or [f"{teacher} is not in the store"]
    groups = ("scores", "selected_by", "collisions", "id_collisions", "codebook", "costs", "provenance")
    return {
        "run": {**line, "fingerprint": _text(at(run.row, "fingerprint")), "attempt": run.attempt},
        **{name: run.row[name] for name in groups if isinstance(run.row.get(name), Mapping) and run.row[name]},
        **{name: lines for name, lines in concerned.items() if lines},
        "files": {name: entry.bytes for name, entry in run.files.items()},
        "config": config,
    }


def config_of(run: StoredRun, registry: Registry) -> dict[str, Any]:
    """The configs of its stages, and its teacher's; a quantizer's row of an older version leaves that to a file."""
    config = at(run.row, "config")
    if not isinstance(config, Mapping) and run.kind == "quantizer" and run.row:
        config = {"quantizer": registry.json_file(run, "config.json")}
    stages = {name: at(config, name) for name in ("quantizer", "recommender", "teacher")}
    return {name: stage for name, stage in stages.items() if isinstance(stage, Mapping)}


def seconds(run: StoredRun) -> float | None:
    """Seconds of work of this stage alone."""
    return _number(at(run.row, "costs", "seconds" if run.kind == "quantizer" else "recommender_seconds"))


def _setting(run: StoredRun) -> str | None:
    """What the studies that show it varied; of a quantizer, what concerns it."""
    found = []
    for cell in run.cells:
        parts = re.split(r" (?=\w+\.)", cell.setting or "") if cell.role == run.kind else []
        found.append(" ".join(part for part in parts if run.kind != "quantizer" or part.startswith("quantizer.")))
    return ", ".join(dict.fromkeys(filter(None, found))) or None


def _epochs(run: StoredRun) -> Any:
    return _number(at(run.row, "costs", "epochs" if run.kind == "quantizer" else "recommender_epochs"))


def _reference(run: StoredRun, registry: Registry) -> str:
    dataset, seed = registry.data(run)
    parts = (run.kind, dataset, ", ".join(registry.methods(run)), None if seed is None else f"seed {seed}")
    return f"{run.key} ({' '.join(filter(None, parts))})" + ("" if run.state == "finished" else f", {run.state}")


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
