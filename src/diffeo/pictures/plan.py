"""Every choice about a flow of pictures, in numbers: a saved model is rebuilt from it."""

from typing import Literal

from pydantic import Field

from diffeo.config import Config
from diffeo.transforms.memory import Memory

__all__ = ["PicturePlan"]


class PicturePlan(Config):
    """What is built: the recipe's own words are in its function."""

    recipe: str = Field(description="the architecture")
    event: tuple[int, int, int] = Field(description="channels, height, width")
    grays: int = Field(256, ge=2, le=256, description="grey levels")
    classes: int = Field(0, ge=0, le=10_000, description="classes that the density is conditioned on; 0: none")
    alpha: float = Field(
        0.0, ge=0, lt=1, description="pixels v in (0, 1) go to logit(alpha/2 + (1 - alpha) v); 0: 2v-1"
    )
    noise: Literal["uniform", "variational"] = Field("uniform", description="the place within a grey level's cell")
    levels: int = Field(1, ge=1, le=8, description="levels, between which places become channels")
    steps: int = Field(1, ge=1, le=256, description="steps of each level, or layers in all")
    width: int = Field(64, ge=1, le=4096, description="channels within the nets")
    depth: int = Field(1, ge=1, le=64, description="blocks of each net")
    patch: int = Field(1, ge=1, le=64, description="side of the patches that are tokens")
    heads: int = Field(1, ge=1, le=64, description="heads of attention")
    packed: bool = Field(True, description="checkerboards packed into half-size pictures, not masked")
    memory: Memory = Field("store", description="what is kept for gradients: all, inputs of steps, or the ends alone")
