"""The dashboards, as far as they can be checked without a Grafana; tests/docker asks a real Prometheus every query."""

import json
import re
import runpy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
GRAFANA = ROOT / "infra" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
SOURCES = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
METRIC = re.compile(r"\bbentobelt_[a-z_]+")
SUFFIXES = re.compile(r"_(total|bucket|sum|count)$")
CODE = "".join(file.read_text() for folder in ("services", "serving") for file in (ROOT / folder).rglob("*.py"))


def test_they_are_what_the_script_writes() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboards.py"))
    assert {name: made["dashboard"](name) for name in made["DASHBOARDS"]} == DASHBOARDS, (
        "run `python infra/grafana/dashboards.py`"
    )


def test_grafana_finds_them() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "bentobelt.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounted["./infra/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./infra/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert SOURCES[0]["url"].removeprefix("http://").split(":")[0] in compose["services"]


def test_uids_are_unique() -> None:
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert len(uids) == len(set(uids)) == 3
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}", uid) for uid in uids)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_are_whole(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids)) >= 6
    for panel in panels:
        assert panel["title"]
        assert panel["type"] in ("timeseries", "stat")
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references)) >= 1
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": SOURCES[0]["uid"]}
    titles = [panel["title"] for panel in panels if panel["type"] == "timeseries"]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_every_metric_is_one_of_ours_and_every_variable_is_defined(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    for query in queries:
        for metric in METRIC.findall(query):
            assert f'"{SUFFIXES.sub("", metric)}"' in CODE or f'"{metric}"' in CODE, metric
        assert set(re.findall(r"\$(\w+)", query)) <= variables
