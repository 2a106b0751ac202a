"""`/docs` and `/openapi.json`: the endpoints of one model with its own features. They work offline."""

import json
from html import escape
from typing import Any

from contracts.features import Feature
from contracts.packaged_model import Manifest
from serving.feedback_request import FeedbackRequests
from serving.prediction_request import PredictionRequests, description_of

_EXAMPLES = {"number": 0.0, "integer": 0, "boolean": False, "string": "text"}


def openapi(manifest: Manifest, predictions: PredictionRequests, feedback: FeedbackRequests) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this model."""
    schemas: dict[str, Any] = {}
    paths = {
        "/predict": {"post": _post("Predictions for rows", predictions.json_schema(), schemas, example(manifest))},
        "/feedback": {"post": _post("True labels of earlier predictions", feedback.json_schema(), schemas, None)},
        "/info": {"get": _get("Version, features, training data")},
        "/readyz": {"get": _get("Readiness: 200 when the model is loaded")},
        "/metrics": {"get": _get("Prometheus metrics")},
    }
    title = {"title": manifest.model, "version": manifest.version}
    return {"openapi": "3.1.0", "info": title, "paths": paths, "components": {"schemas": schemas}}


def example(manifest: Manifest) -> dict[str, Any]:
    """Return an example of a body for `/predict`."""
    return {"rows": [{feature.name: _EXAMPLES[feature.type] for feature in manifest.features}]}


def page(manifest: Manifest, body: str) -> str:
    """Return the HTML page, with a form to try a prediction that contains the JSON `body` at first."""
    features = "".join(_table_row(feature) for feature in manifest.features)
    name, version = escape(manifest.model), escape(manifest.version)
    label = manifest.classes[0] if manifest.classes else _EXAMPLES[manifest.target.type]
    labels = json.dumps({"labels": [{"id": "id of a prediction", "label": label}]}, ensure_ascii=False)
    target = escape(manifest.target.name)
    return _PAGE.format(
        name=name, version=version, features=features, body=escape(body), target=target, labels=escape(labels)
    )


def _post(summary: str, schema: dict[str, Any], schemas: dict[str, Any], sample: object) -> dict[str, Any]:
    schemas |= schema.pop("$defs", {})
    content: dict[str, Any] = {"schema": _with_component_refs(schema)}
    if sample is not None:
        content["example"] = sample
    descriptions = {"200": "success", "400": "not JSON", "413": "too large", "422": "invalid input", "503": "try again"}
    responses = {code: {"description": text} for code, text in descriptions.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": responses,
    }


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "success"}}}


def _with_component_refs(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _with_component_refs(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_with_component_refs(value) for value in schema]
    return schema.replace("#/$defs/", "#/components/schemas/") if isinstance(schema, str) else schema


def _table_row(feature: Feature) -> str:
    return f"<tr><td><code>{escape(feature.name)}</code></td><td>{escape(description_of(feature))}</td></tr>"


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>body{{font:16px/1.5 system-ui;max-width:52rem;margin:2rem auto;padding:0 1rem}}
textarea{{width:100%;height:9rem;box-sizing:border-box}}
pre,textarea{{font:13px monospace;background:#f4f4f4;padding:.5rem;border:0}}
pre{{overflow:auto}}pre:empty{{display:none}}td{{padding-right:2rem}}</style>
<h1>{name} <small>{version}</small></h1>
<p>Predicts <code>{target}</code>. <a href="openapi.json">OpenAPI</a> · <a href="info">info</a> ·
<a href="metrics">metrics</a></p>
<h2>POST predict</h2><textarea id="body">{body}</textarea><p><button id="go">Try it</button></p><pre id="answer"></pre>
<h2>POST feedback</h2><p>The true <code>{target}</code> of earlier predictions, each with the prediction's id:</p>
<pre>{labels}</pre>
<h2>Features</h2><table>{features}</table>
<script>document.getElementById("go").onclick=async()=>{{const r=await fetch("predict",{{method:"POST",
body:document.getElementById("body").value}});
document.getElementById("answer").textContent=r.status+" "+await r.text()}}</script>
"""
