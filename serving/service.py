"""What BentoML loads, the same for every model: the model's tag comes as an argument of the Bento.

BentoML imports this module in the supervisor, in the worker and when building: nothing heavy may be imported at its
top. The model, and scikit-learn with it, is loaded in the worker alone, when it starts.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import bentoml
from pydantic import BaseModel, Field

from serving.asgi import App, AsgiFront

if TYPE_CHECKING:
    from serving.app import Serving


class Arguments(BaseModel):
    """Arguments of the Bento."""

    model_tag: str = Field(description="BentoML tag of the packed model, <model>:<version>")


arguments = bentoml.use_arguments(Arguments)
front = AsgiFront()


class Fronted(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose ASGI app is `front`, with BentoML's own behind it."""

    def to_asgi(self, is_main: bool = True) -> App:
        front.behind = super().to_asgi(is_main)
        return front


@bentoml.service(
    name=arguments.model_tag.split(":")[0],
    service_class=Fronted,
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class service:
    """Predictions with an id per row, feedback on them, and a log of both on the bus."""

    packed = bentoml.models.BentoModel(arguments.model_tag)
    serving: "Serving"

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        from serving.app import Serving
        from serving.model import load
        from serving.settings import Settings

        self.serving = Serving(load(Path(self.packed.path)), Settings())
        self.serving.start()
        front.open(self.serving.routes())
        # What is there by now stays: it need not be looked through with every collection.
        gc.freeze()
        gc.enable()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        await self.serving.stop()
