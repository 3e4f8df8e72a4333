"""diffeo learns the exact probability density of your data and puts it to use.

    model = diffeo.fit("table.csv")  # a path, a pandas or polars frame, an array
    model.log_prob(frame)            # nats per row, in the units of the file
    model.sample(1000)               # new rows

    diffeo.fit("folder/of/pictures").sample(36)  # new pictures

Names are imported when they are first used, so that `import diffeo` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffeo.version import __version__

if TYPE_CHECKING:
    from diffeo import errors
    from diffeo.config import FitConfig, PictureConfig
    from diffeo.contract import check_density, check_transform
    from diffeo.data.schema import Schema
    from diffeo.model import Model, fit, load
    from diffeo.pictures.model import PictureModel

__all__ = [
    "FitConfig",
    "Model",
    "PictureConfig",
    "PictureModel",
    "Schema",
    "__version__",
    "check_density",
    "check_transform",
    "errors",
    "fit",
    "load",
]

_HOMES = {
    "FitConfig": "config",
    "Model": "model",
    "PictureConfig": "config",
    "PictureModel": "pictures.model",
    "Schema": "data.schema",
    "check_density": "contract",
    "check_transform": "contract",
    "fit": "model",
    "load": "model",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        value = import_module("diffeo.errors")
    elif name in _HOMES:
        value = getattr(import_module(f"diffeo.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'diffeo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
