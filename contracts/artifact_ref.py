"""References to stored bytes: events carry references, never the bytes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ArtifactRef(BaseModel):
    """Location and digest of stored bytes. Every reader checks the digest."""

    model_config = ConfigDict(frozen=True)

    uri: str = Field(
        min_length=1, description="location of the bytes, e.g. nats://artifacts/<sha256> or s3://bucket/<sha256>"
    )
    sha256: Sha256 = Field(description="digest of the bytes, hex")
    size: int = Field(ge=0, description="bytes")
    media_type: str = Field(description="format of the bytes, e.g. application/vnd.apache.parquet")


PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
TAR_GZ = "application/gzip"
JOBLIB = "application/x-joblib"
BENTO = "application/vnd.bentoml.bento+tar"
HTML = "text/html"
TEXT = "text/plain"
CYCLONEDX = "application/vnd.cyclonedx+json"
