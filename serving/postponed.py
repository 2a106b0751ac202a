"""Libraries without what they import and serving never uses: that is imported when somebody asks for it.

A quarter of a container's start went into modules that only stand in import lists: scikit-learn wants `scipy.stats`
for three names, BentoML wants a proxy, a supervisor, and clients of BentoCloud. While the libraries are imported,
stand-ins take the place of these modules. Then they go, so that whoever imports one of them later, a project's code
say, gets the real one; and so does who holds a stand-in, with the first thing that is asked of it.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

LIBRARIES = (
    *("bentoml.models", "_bentoml_impl.client", "_bentoml_impl.server.app", "uvicorn.protocols.websockets.auto"),
    *("pandas", "sklearn.ensemble", "sklearn.pipeline"),
)
POSTPONED = {
    # scikit-learn and scipy copy all that numpy has into namespaces of their own.
    "numpy.f2py": (),
    "numpy.testing": (),
    "scipy.integrate": ("trapezoid",),
    "scipy.interpolate": ("BSpline",),
    "scipy.optimize": ("linear_sum_assignment", "linprog", "minimize", "minimize_scalar"),
    "scipy.optimize._linesearch": ("line_search_wolfe2", "scalar_search_wolfe1"),
    "scipy.spatial.transform": (),
    "scipy.stats": ("chi2", "gmean", "rankdata"),
    "httpx": ("AsyncClient", "Client"),
    "uvicorn.protocols.websockets.wsproto_impl": ("WSProtocol",),
    "wsproto": (),
    "bentoml._internal.utils.analytics": ("ModelSaveEvent", "track"),
    "_bentoml_impl.server.proxy": ("create_proxy_app",),
    "_bentoml_impl.server.serving": ("serve_http",),
    "bentoml._internal.cloud.client": ("RestApiClient",),
    "bentoml._internal.cloud.schemas.modelschemas": ("LabelItemSchema", "ModelManifestSchema"),
    "bentoml._internal.cloud.schemas.schemasv1": ("CreateModelSchema",),
}
"""Module → what the libraries import from it by name, and only call it or ask for its methods."""


def import_libraries() -> None:
    """Import LIBRARIES; a version of one that wants more than a stand-in can give is left to who needs it."""
    importlib.import_module("numpy")  # a part of it can only be stood in for when it is there
    with contextlib.suppress(ImportError, AttributeError, TypeError), _stand_ins():
        for library in LIBRARIES:
            importlib.import_module(library)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    there = {name: _StandIn(name, names) for name, names in POSTPONED.items() if name not in sys.modules}
    # Of the others nobody asks the parent yet: `from … import` finds them in sys.modules.
    parts = {name: name.rpartition(".") for name in there if name.rpartition(".")[0] in sys.modules}
    sys.modules.update(there)
    for name, (parent, _, child) in parts.items():
        setattr(sys.modules[parent], child, there[name])
    try:
        yield
    finally:
        for name in there:
            _make_way(name)
        # A parent that was imported meanwhile keeps the stand-in as its part, which it would not find again.
        for parent, _, child in parts.values():
            if isinstance(vars(sys.modules[parent]).get(child), _StandIn):
                delattr(sys.modules[parent], child)


class _StandIn(ModuleType):
    """A module that is imported with the first attribute that is asked of it, or the first use of one of `names`."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.__dict__.update({attribute: _Later(name, attribute) for attribute in names})

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # what the import system looks at
            raise AttributeError(attribute)
        return getattr(_real(self.__name__), attribute)


class _Later:
    """Something of such a module."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return getattr(_real(self._module), self._name)(*arguments, **named)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # what `typing` and `copy` look for
            raise AttributeError(attribute)
        return getattr(getattr(_real(self._module), self._name), attribute)

    def __mro_entries__(self, _: Any) -> tuple[Any, ...]:
        return (getattr(_real(self._module), self._name),)


def _real(name: str) -> ModuleType:
    _make_way(name)
    return importlib.import_module(name)


def _make_way(name: str) -> None:
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
