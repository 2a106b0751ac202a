"""A BentoML service written by hand, to compare with: the same model, predictions only, no log, default settings."""

from pathlib import Path

import bentoml
from pydantic import BaseModel

with bentoml.importing():
    import joblib
    import pandas as pd


class Arguments(BaseModel):
    model_tag: str


arguments = bentoml.use_arguments(Arguments)


@bentoml.service(name="plain")
class service:
    packed = bentoml.models.BentoModel(arguments.model_tag)

    def __init__(self) -> None:
        self.model = joblib.load(Path(self.packed.path) / "saved_model.pkl")

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, rows: list[dict[str, float]]) -> list[int]:
        predicted: list[int] = self.model.predict(pd.DataFrame(rows)).tolist()
        return predicted
