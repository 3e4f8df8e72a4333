"""The data sets that come with the package: what each one is, and where its file lies."""

import difflib
from pathlib import Path
from typing import NamedTuple

from diffeo.errors import DataError


class Embedded(NamedTuple):
    """A data set inside the package."""

    file: str
    rows: int
    title: str
    columns: dict[str, str]
    source: str
    licence: str


EMBEDDED = {
    "stars": Embedded(
        file="stars.parquet",
        rows=20_000,
        title="stars near the sun: colours, brightness, speed and place",
        columns={
            "b_v": "colour B-V, magnitudes, rounded to .001",
            "M_hp": "absolute magnitude",
            "v_i": "colour V-I, magnitudes, rounded to .01",
            "log_vt": "log10 of the speed across the line of sight, km/s",
            "log_dist_pc": "log10 of the distance, parsec",
            "ra_rad": "right ascension, radians, 0 to 2 pi",
            "dec_rad": "declination, radians",
        },
        source="Hipparcos catalogue, new reduction (ESA, I/311), parallax better than 10 sigma; "
        "20,000 of 30,394 stars, drawn and shuffled by numpy's default_rng(0)",
        licence="public domain",
    ),
}


def find(name: str) -> Embedded:
    """The data set of this name; DataError, with the nearest name, where there is none.

    >>> find("stars").rows
    20000
    """
    if name not in EMBEDDED:
        close = difflib.get_close_matches(name, EMBEDDED, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(EMBEDDED)}"
        raise DataError(f"{name}: there is no such embedded data set; {hint}")
    return EMBEDDED[name]


def path_of(name: str) -> str:
    """The path of an embedded data set where DATA names one and no file of that name exists; else the name itself.

    >>> path_of("table.csv"), Path(path_of("stars")).name
    ('table.csv', 'stars.parquet')
    """
    if name not in EMBEDDED or (Path(name).exists() and not Path(name).is_dir()):
        return name
    return str(Path(__file__).with_name(EMBEDDED[name].file))
