"""Numbers -> pictures: PNG bytes drawn with matplotlib's object interface."""

from diffeo.report.figures.evenness import evenness
from diffeo.report.figures.marginals import marginal
from diffeo.report.figures.pairs import pair
from diffeo.report.figures.scores import comparison, learning_curve
from diffeo.report.figures.sheet import DATA, SAMPLES, data_uri, tidy

__all__ = ["DATA", "SAMPLES", "comparison", "data_uri", "evenness", "learning_curve", "marginal", "pair", "tidy"]
