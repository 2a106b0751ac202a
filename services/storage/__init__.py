"""Storage that outlives messages: artifacts by digest, the registry of versions, and the BentoML model store.

Services import these names from here. `model_store` is for child processes: it imports BentoML.
"""

from services.storage.archives import BadArchive, is_skipped, pack_folder
from services.storage.artifact_store import (
    ArtifactCorrupt,
    ArtifactMissing,
    ArtifactStore,
    FsspecArtifactStore,
    open_artifact_store,
)
from services.storage.registry import Candidate, Deployed, Live, Project, Registry

__all__ = [
    "ArtifactCorrupt",
    "ArtifactMissing",
    "ArtifactStore",
    "BadArchive",
    "Candidate",
    "Deployed",
    "FsspecArtifactStore",
    "Live",
    "Project",
    "Registry",
    "is_skipped",
    "model_store",
    "open_artifact_store",
    "pack_folder",
]
