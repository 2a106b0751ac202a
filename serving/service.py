"""The service that BentoML loads. It is the same for every model: the model's tag is an argument of the Bento.

BentoML imports this module in the supervisor, in the worker and in a build: nothing heavy is imported at the top. The
model, and scikit-learn with it, is loaded in the worker alone, when it starts.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
from pydantic import BaseModel, Field

from serving.asgi import App, ModelApp

if TYPE_CHECKING:
    from serving.app import Serving


class Arguments(BaseModel):
    """Arguments of the Bento."""

    model_tag: str = Field(description="BentoML tag of the packaged model, <model>:<version>")


arguments = bentoml.use_arguments(Arguments)
model_app = ModelApp()


class ModelService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose ASGI app is `model_app`, which passes other requests on to BentoML's own."""

    def to_asgi(self, is_main: bool = True) -> App:
        model_app.bentoml_app = super().to_asgi(is_main)
        return model_app


@bentoml.service(
    name=arguments.model_tag.split(":")[0],
    service_class=ModelService,
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class service:
    """Predictions with an id per row, feedback on them, and a log of both on the bus."""

    packaged = bentoml.models.BentoModel(arguments.model_tag)
    serving: "Serving"

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        from serving.app import Serving
        from serving.model import load
        from serving.settings import Settings

        self.serving = Serving(load(Path(self.packaged.path)), Settings())
        self.serving.start()
        model_app.routes = self.serving.routes()
        # The objects that exist now stay. Frozen, they are skipped by every garbage collection.
        gc.freeze()
        gc.enable()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        await self.serving.stop()
