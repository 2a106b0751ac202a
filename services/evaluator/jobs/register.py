"""Registering an approved model in the BentoML model store."""

from typing import Any

from contracts.packaged_model import Manifest
from services.evaluator import domain
from services.evaluator.jobs.predict import Progress, spec_of
from services.evaluator.jobs.requests import RegistrationRequest, RegistrationResult
from services.storage import model_store


def register(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Put an approved model into the model store: `RegistrationRequest` in, `RegistrationResult` out."""
    request = RegistrationRequest.model_validate(argument)
    approved, max_rows = request.approved, spec_of(request.project).serve.max_rows
    progress({"step": "register", "tag": approved.tag})
    folder = model_store.save(
        request.home,
        approved.tag,
        request.model,
        request.project,
        Manifest.of(approved, request.run, max_rows),
        domain.labels(approved, request.run),
        domain.metadata(approved, request.metrics),
    )
    return RegistrationResult(folder=folder).model_dump(mode="json")
