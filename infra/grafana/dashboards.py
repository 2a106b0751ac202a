"""Writes the dashboards: `python infra/grafana/dashboards.py` (a test keeps them current and runs every query)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, COLUMNS, HEIGHT = 24, 3, 8


@dataclass(frozen=True)
class Panel:
    """A panel: queries with the legends of their series. `kind` is a panel type of Grafana."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


VERSION = '{model=~"$model", version=~"$version"}'
OF_VERSION = "{{model}} {{version}}"


def finished(outcome: str, by: str = "service") -> str:
    """Return the query for the number of messages in the last five minutes; `outcome` has the operator too."""
    return f"sum by ({by}) (increase(bentobelt_events_total{{outcome{outcome}}}[5m]))"


def started(service: str, subject: str) -> str:
    """Return the query for the number of events that a service has handled in the last day."""
    labels = f'service="{service}", subject="{subject}", outcome="done"'
    return f"sum(increase(bentobelt_events_total{{{labels}}}[1d]))"


def stage_time(share: float) -> str:
    """Return the query for a quantile of the time per stage, e.g. `share` 0.95."""
    return f"histogram_quantile({share}, sum by (le, service) (rate(bentobelt_event_seconds_bucket[5m])))"


def latency(share: float) -> str:
    """Return the query for a quantile of the latency of each version."""
    buckets = f"rate(bentobelt_latency_seconds_bucket{VERSION}[1m])"
    return f"histogram_quantile({share}, sum by (le, model, version) ({buckets}))"


def rate(metric: str, labels: str = "", by: str = "model, version") -> str:
    """Return the query for the rate of a counter of each version; `labels` narrow it."""
    return f"sum by ({by}) (rate({metric}{VERSION[:-1]}{labels}}}[1m]))"


def monitored(name: str, about: str = "") -> tuple[str, str]:
    """Return the query for a gauge of the monitor for each version, and its legend."""
    return f"max by (model, version) (bentobelt_monitor_{name}{VERSION})", f"{OF_VERSION} {about}".strip()


LOOP = (
    Panel("Workers that answer", [('sum(up{job="workers"})', "")], kind="stat"),
    Panel("Runs started, last day", [(started("trainer", "data.pushed"), "")], kind="stat"),
    Panel("Rollouts, last day", [(started("deployer", "image.pushed"), "")], kind="stat"),
    Panel("Stages done", [(finished('="done"'), "{{service}}")]),
    Panel(
        "Stages failed, retried, lost",
        [(finished('=~"failed|retried|lost|unreadable"', "service, outcome"), "{{service}} {{outcome}}")],
        about="failed: given up, a <stage>.failed says why. retried: a transient error. lost: the worker died.",
    ),
    Panel(
        "Dead letters",
        [('sum(increase(bentobelt_events_total{service="notifier", subject="dlq.>"}[5m]))', "dead letters")],
        about="Messages that could not be read or kept failing are in the stream DLQ; `belt doctor` counts them.",
    ),
    Panel("Time per stage, median", [(stage_time(0.5), "{{service}}")], unit="s"),
    Panel("Time per stage, 95 of 100", [(stage_time(0.95), "{{service}}")], unit="s"),
    Panel(
        "Messages waiting",
        [
            (
                "max by (service, subject) (bentobelt_pending) > 0 or sum(bentobelt_pending) * 0",
                "{{service}} {{subject}}",
            )
        ],
        about="More and more waiting: scale the worker, `docker compose up -d --scale trainer=3`.",
    ),
    Panel("Memory of workers", [('process_resident_memory_bytes{job="workers"}', "{{instance}}")], unit="bytes"),
    Panel(
        "CPU of workers", [('rate(process_cpu_seconds_total{job="workers"}[1m])', "{{instance}}")], unit="percentunit"
    ),
)
SERVING = (
    Panel("Serving containers that answer", [('sum(up{job="serving"})', "")], kind="stat"),
    Panel("Rows per second", [("sum(rate(bentobelt_rows_total[1m]))", "")], kind="stat"),
    Panel("Errors, last hour", [("sum(increase(bentobelt_errors_total[1h]))", "")], kind="stat"),
    Panel(
        "Predictions per second",
        [(rate("bentobelt_requests_total", ', endpoint="predict"'), OF_VERSION)],
        unit="reqps",
    ),
    Panel("Rows per second", [(rate("bentobelt_rows_total"), OF_VERSION)]),
    Panel(
        "Error answers per second",
        [
            (
                rate("bentobelt_requests_total", ', code!~"2.."', "model, version, code")
                + f" or {rate('bentobelt_errors_total')}",
                OF_VERSION + " {{code}}",
            )
        ],
        about="4xx: the client's input. 5xx: an error of the model or of serving.",
    ),
    Panel("Latency, median", [(latency(0.5), OF_VERSION)], unit="s"),
    Panel("Latency, 95 of 100", [(latency(0.95), OF_VERSION)], unit="s"),
    Panel("Latency, 99 of 100", [(latency(0.99), OF_VERSION)], unit="s"),
    Panel("Labels per second", [(rate("bentobelt_labels_total"), OF_VERSION)]),
    Panel(
        "Predictions not yet on the bus",
        [
            (f"sum by (model, version) (bentobelt_log_waiting_rows{VERSION})", OF_VERSION + " waiting"),
            (
                f"sum by (model, version) (increase(bentobelt_log_dropped_rows_total{VERSION}[5m]))",
                OF_VERSION + " dropped",
            ),
        ],
        about="They wait while the bus is not reachable; beyond SERVING_LOG_BYTES the oldest are dropped.",
    ),
)
MODEL = (
    Panel(
        "Accuracy of the last window and expected accuracy",
        [monitored("accuracy"), monitored("promised", "expected")],
        unit="percentunit",
        about="Accuracy, or for regression the share within tolerance. Without labels there is none.",
    ),
    Panel("Evidence of lost accuracy", [monitored("loss_statistic")], about="An alarm at MONITOR_RUN_LABELS."),
    Panel("Evidence of drift", [monitored("drift_statistic")], about="An alarm at MONITOR_RUN_WINDOWS."),
    Panel("Share of predictions with a label", [monitored("coverage")], unit="percentunit"),
    Panel("Predictions monitored", [monitored("rows")]),
    Panel(
        "Labels",
        [
            monitored("labels", "joined"),
            ('max by (model) (bentobelt_monitor_unmatched{model=~"$model"})', "{{model}} without a known prediction"),
        ],
    ),
)
DASHBOARDS = {
    "loop": ("The loop", LOOP, ()),
    "serving": ("Serving", SERVING, (("model", "bentobelt_rows_total"), ("version", "bentobelt_rows_total"))),
    "model": ("The models", MODEL, (("model", "bentobelt_monitor_rows"), ("version", "bentobelt_monitor_rows"))),
}


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON model."""
    title, panels, variables = DASHBOARDS[name]
    return {
        "uid": f"bentobelt-{name}",
        "title": title,
        "tags": ["bentobelt"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable(*variable) for variable in variables]},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["bentobelt"], "title": "Bentobelt", "asDropdown": False}],
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _variable(name: str, metric: str) -> dict[str, Any]:
    narrowed = metric if name == "model" else f'{metric}{{model=~"$model"}}'
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({narrowed}, {name})", "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    width = WIDTH // COLUMNS
    place = {"x": number % COLUMNS * width, "y": number // COLUMNS * HEIGHT, "w": width, "h": HEIGHT}
    targets = [
        {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
        for place, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def write() -> None:
    """Write all dashboards."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(json.dumps(dashboard(name), indent=2) + "\n")


if __name__ == "__main__":
    write()
