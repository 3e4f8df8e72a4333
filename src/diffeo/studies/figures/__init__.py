"""Arrays -> pictures of a study, PNG and SVG, drawn with matplotlib's object interface."""

from diffeo.studies.figures.lines import Curve, against, curves, profiles
from diffeo.studies.figures.planes import Cloud, Panel, Web, planes, web
from diffeo.studies.figures.plate import DATA, SAMPLES, Drawing

__all__ = ["DATA", "SAMPLES", "Cloud", "Curve", "Drawing", "Panel", "Web"]
__all__ += ["against", "curves", "planes", "profiles", "web"]
