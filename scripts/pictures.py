"""Draws docs/pictures/stars.png: the star catalogue beside as many stars drawn from the model that `make demo` fits."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import diffeo
from diffeo.data.embedded import path_of
from diffeo.data.files import read

ROOT = Path(__file__).parent.parent


def main() -> None:
    model = diffeo.load(ROOT / "demo" / "stars")
    stars = read(path_of("stars"))
    drawn = model.sample(stars.num_rows, seed=0)
    figure = Figure(figsize=(9, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    edges = np.linspace(-0.4, 2.0, 121), np.linspace(-5, 13, 121)
    titles = ("20,000 stars", "20,000 drawn from the density")
    for axes, table, title in zip(panels, (stars, drawn), titles, strict=True):
        colour, magnitude = (table[name].to_numpy() for name in ("b_v", "M_hp"))
        axes.hist2d(colour, magnitude, edges, norm=LogNorm(1, 150), cmap="viridis")
        axes.set(title=title, xlabel="colour B - V")
    panels[0].set_ylabel("absolute magnitude")
    panels[0].invert_yaxis()
    target = ROOT / "docs" / "pictures" / "stars.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)


if __name__ == "__main__":
    main()
