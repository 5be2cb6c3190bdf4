"""What stands behind a cell: a record per run of keys, config against the full model, data, code, scores, cost."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.costs import duration
from analysis.labels import FULL, METRIC_LABELS, dataset_label
from analysis.page.live import Live
from analysis.page.tables import Json, method_name, text
from analysis.rows import METRICS, SPLITS, STAGES
from analysis.whole import StudyPart

NOT_CONFIG = ("dataset", "fingerprint", "seed")
"""Of a run's config: told apart in the record itself."""
NONE = "–"
MEGABYTE = 1e6


def run_records(studies: Mapping[str, StudyPart], live: Mapping[str, Live]) -> dict[str, Json]:
    """Run key -> its record: `title`, `status`, `groups` of (heading, (name, value) pairs) and, if the configs of both
    are known, `diff`: fields in which it differs from the full model, as (field, full model, this run)."""
    records: dict[str, Json] = {}
    for part in studies.values():
        whole = {key: _flattened(config) for key, config in part.configs.items()}
        full = _full_models(part, whole)
        for row in part.rows.to_dict("records"):
            key = row["run_key"]
            setting = text(row["setting"])
            shown = f"{part.name}: {method_name(row['method'], row['label'], setting)}, seed {row['seed']}"
            if key in records:
                if shown not in records[key]["shown"]:
                    records[key]["shown"].append(shown)
                if records[key]["status"] == "done" or row["status"] != "done":
                    continue
            reference = full.get((row["dataset"], row["seed"]))
            records[key] = {
                "title": method_name(row["method"], row["label"], setting),
                "about": f"{dataset_label(row['dataset'])}, seed {row['seed']}",
                "status": row["status"],
                "shown": [*records.get(key, {}).get("shown", []), *([] if key in records else [shown])],
                "groups": [[head, pairs] for head, found in _groups(row, live.get(key)) if (pairs := [*found])],
                **_compared(key, reference, whole),
            }
    return records


def _groups(row: Mapping[str, Any], live: Live | None) -> Iterator[tuple[str, list[list[str]]]]:
    yield "State", _state(row, live)
    yield "Scores", _scores(row)
    yield "Keys", _pairs(row, {"run_key": "run", "quantizer_key": "quantizer", "teacher_key": "teacher"})
    data = {"dataset": "data set", "fingerprint": "fingerprint", "seed": "seed", "components": "signals"}
    yield "Data", _pairs(row, data | {"profile": "profile", "overrides": "overrides", "setting": "setting"})
    origin = [name for name in row if name.startswith("provenance/")]
    yield "Code and machine", _pairs(row, {name: name.partition("/")[2].replace("_", " ") for name in origin})
    yield "Cost", _costs(row)
    yield "Collisions", _numbers(row, "collisions", "id_collisions")


def _state(row: Mapping[str, Any], live: Live | None) -> list[list[str]]:
    found = [["status", row["status"]]]
    if live is not None:
        found.append(["progress", live.said])
    return found + _pairs(row, {"error": "error", "note": "note"})


def _scores(row: Mapping[str, Any]) -> list[list[str]]:
    return [
        [f"{split} {METRIC_LABELS[metric]}", f"{value:.6f}"]
        for split in reversed(SPLITS)
        for metric in METRICS
        if math.isfinite(value := row[f"{split}/{metric}"])
    ]


def _pairs(row: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    return [[said, str(value)] for name, said in names.items() if (value := text(row.get(name))) not in (None, "")]


def _costs(row: Mapping[str, Any]) -> list[list[str]]:
    """Seconds as durations, bytes as megabytes, whatever else as a plain number."""
    found = []
    for name, value in row.items():
        group, _, field = name.partition("/")
        if group != "costs" or pd.isna(value):
            continue
        said = field.replace("_", " ")
        if field.endswith("seconds"):
            found.append([said.removesuffix(" seconds") if said != "seconds" else "work", duration(value)])
        elif field.endswith("bytes"):
            found.append([said.removesuffix(" bytes"), f"{value / MEGABYTE:,.0f} MB"])
        else:
            found.append([said, f"{value:,.6g}"])
    return found


def _numbers(row: Mapping[str, Any], *groups: str) -> list[list[str]]:
    names = {"collisions": "", "id_collisions": "IDs, "}
    return [
        [names[group] + field.replace("_", " "), f"{value:,.6g}"]
        for name, value in row.items()
        for group, _, field in [name.partition("/")]
        if group in groups and pd.notna(value)
    ]


def _full_models(part: StudyPart, configs: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """(data set, seed) -> the full model's run: the one that most of its cells show, as several settings share it."""
    rows = part.rows[(part.rows["method"] == FULL) & part.rows["run_key"].isin(list(configs))]
    found: dict[tuple[str, int], str] = {}
    for (dataset, seed), own in rows.groupby(["dataset", "seed"], sort=False):
        counts = own["run_key"].value_counts(sort=False)
        plain = own.loc[own["setting"].isna(), "run_key"]
        best = plain.iloc[0] if len(plain) else counts.idxmax() if counts.max() > 1 or len(counts) == 1 else None
        if best is not None:
            found[dataset, int(seed)] = best
    return found


def _compared(key: str, reference: str | None, configs: Mapping[str, Mapping[str, Any]]) -> Json:
    if reference is None or key not in configs or reference not in configs:
        return {}
    return {"full": reference, "diff": config_difference(configs[reference], configs[key])}


def config_difference(full: Mapping[str, Any], own: Mapping[str, Any]) -> list[list[str]]:
    """(field, value in the one, value in the other), where they differ; a stage that one has not is one line."""
    lacking = {
        stage: side
        for stage in STAGES
        for side, config in enumerate((full, own))
        if not any(name.startswith(f"{stage}.") for name in config)
    }
    lines = []
    for stage, side in lacking.items():
        if any(name.startswith(f"{stage}.") for name in (own, full)[side]):
            lines.append([stage, *(["none", "its own"] if side == 0 else ["its own", "none"])])
    for name in dict.fromkeys((*full, *own)):
        stage = name.partition(".")[0]
        if stage not in lacking and full.get(name, NONE) != own.get(name, NONE):
            lines.append([name, _value(full.get(name, NONE)), _value(own.get(name, NONE))])
    return lines


def _flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flattened(value, f"{prefix}{name}.")
        elif prefix or name not in (*NOT_CONFIG, *STAGES):
            found[f"{prefix}{name}"] = value
    return found


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
