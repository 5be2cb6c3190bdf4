"""The Grafana dashboard: a valid one, of metrics that exist, with their tags; and the table of metrics in the docs.

With `promtool` at hand (`apt-get install prometheus`, or PROMTOOL=FILE) the parser of Prometheus reads every query.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from sweeps.metrics import METRICS

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana" / "bbqrec.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
RAYS_TAGS = {"instance", "Component", "GpuIndex"}


def selectors(query: str) -> list[tuple[str, str]]:
    """The metrics of a query, each with what it is filtered by."""
    return re.findall(r"\b(ray_\w+)(?:\{((?:[^{}\"]|\"[^\"]*\")*)\})?", query)


def tags_of(metric: str) -> set[str] | None:
    """The tags of one of our metrics, None for one of Ray's. Anything else raises."""
    ours = METRICS.get(metric.removeprefix("ray_"))
    if ours is None:
        assert metric.removeprefix("ray_") in METRICS_GAUGES, f"no metric {metric}"
    return None if ours is None else set(ours.tags)


def test_panels_have_places_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not own & taken, panel["title"]
        taken |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["type"] for panel in PANELS} <= {"timeseries", "stat", "gauge", "bargauge"}
    assert all(panel["description"] and panel["targets"] for panel in PANELS)


def test_it_belongs_to_no_installation():
    """The source of the data is chosen on the page; Grafana itself numbers what it takes in."""
    assert "id" not in DASHBOARD and DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 27
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "study"} and variables["datasource"]["query"] == "prometheus"
    sources = [panel["datasource"] for panel in PANELS] + [target["datasource"] for _, target in QUERIES]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert not re.search(r"https?://|localhost|127\.0\.0\.1", json.dumps(DASHBOARD))


@pytest.mark.parametrize(("title", "target"), QUERIES, ids=[f"{title} {target['refId']}" for title, target in QUERIES])
def test_queries_name_metrics_and_tags_that_exist(title: str, target: dict[str, Any]):
    found = selectors(target["expr"])
    assert found and target["expr"].count("ray_") == len(found)
    known: set[str] = set(RAYS_TAGS)
    for metric, filters in found:
        tags = tags_of(metric)
        known |= tags or set()
        named = set(re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', '""', filters)))
        assert named <= (RAYS_TAGS if tags is None else tags), f"{title}: {metric} has no tag {named}"
        assert tags is None or 'study=~"$study"' in filters, f"{title}: of all studies"
    grouped = {tag.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in group.split(",")}
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert grouped | shown <= known and (not grouped or shown <= grouped), title


def test_every_metric_of_ours_is_on_it():
    shown = {metric for _, target in QUERIES for metric, _ in selectors(target["expr"])}
    assert {f"ray_{name}" for name in METRICS} <= shown


def test_the_docs_list_every_metric_as_it_is():
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `ray_(\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.M)
    }
    assert rows == {
        name: (metric.kind, metric.unit or "-", ", ".join(metric.tags), metric.meaning)
        for name, metric in METRICS.items()
    }
    tags = {tag for metric in METRICS.values() for tag in metric.tags}
    explained = {tag for cell in re.findall(r"^\| ([a-z, ]+) \| [^|]* \|$", text, re.M) for tag in cell.split(", ")}
    assert tags <= explained


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (apt-get install prometheus, or PROMTOOL=FILE)")
def test_prometheus_can_read_the_queries(tmp_path: Path):
    rules = [{"record": f"panel:{n}", "expr": t["expr"].replace("$study", ".*")} for n, (_, t) in enumerate(QUERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run([str(PROMTOOL), "check", "rules", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    file.write_text(file.read_text().replace("sum by", "sum buy"))
    assert subprocess.run([str(PROMTOOL), "check", "rules", str(file)], capture_output=True).returncode != 0
