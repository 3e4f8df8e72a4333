"""Moments in time: date columns and ISO text <-> whole ticks of a unit since 1970, and back to the very same cells."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from diffeo.data.arrow import is_text

MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None", "<NA>", "#N/A", "NaT")
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:([T ])\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?")
_NOT_A_TIME = np.iinfo(np.int64).min


class Dates(BaseModel):
    """How a column writes its moments: `unit` of its ticks (D, s, ms, us, ns), the first tick, and for text its layout.

    `layout` is an example of the text, such as 2013-01-01T06:00:00Z: separator, digits and zone are read off it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: int
    unit: str
    layout: str | None = None

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Seconds since the first moment, float64; `ticks` int64, with the least int64 for a missing one."""
        missing = ticks == _NOT_A_TIME
        past = np.where(missing, 0, ticks - self.origin)
        scale = float(_DAY) if self.unit == "D" else 1.0 / PER_SECOND[self.unit]
        return np.where(missing, np.nan, past * scale if self.unit == "D" else past / PER_SECOND[self.unit])

    def ticks(self, seconds: np.ndarray) -> np.ndarray:
        """The nearest ticks, int64; NaN becomes the least int64."""
        missing = np.isnan(seconds)
        safe = np.where(missing, 0.0, seconds)
        past = safe / _DAY if self.unit == "D" else safe * PER_SECOND[self.unit]
        return np.where(missing, _NOT_A_TIME, np.rint(past).astype(np.int64) + self.origin)

    def show(self, seconds: float) -> str:
        """The moment so many seconds after the first, in ISO form.

        >>> Dates(origin=0, unit="s").show(60.0)
        '1970-01-01T00:01:00'
        """
        return _iso(self.ticks(np.array([seconds])), self.unit)[0]


def _iso(ticks: np.ndarray, unit: str) -> list[str]:
    return [str(text) for text in np.datetime_as_string(ticks.astype(f"datetime64[{unit}]"))]


def layout_of(text: str) -> str | None:
    """The shape of an ISO date with its digits as 0 (the zone kept); None where the text is no ISO date.

    >>> layout_of("2013-01-01T06:00:00Z"), layout_of("2013-01-01"), layout_of("soon")
    ('0000-00-00T00:00:00Z', '0000-00-00', None)
    """
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    zone = match[4] or ""
    head = text[: len(text) - len(zone)]
    return re.sub(r"\d", "0", head) + zone


def unit_of(layout: str) -> str:
    """The unit that a layout resolves.

    >>> unit_of("0000-00-00T00:00:00.000Z"), unit_of("0000-00-00")
    ('ms', 'D')
    """
    if len(layout) == 10:
        return "D"
    digits = len(layout.split(".")[1].rstrip("Z").split("+")[0].split("-")[0]) if "." in layout else 0
    return "s" if digits == 0 else "ms" if digits <= 3 else "us" if digits <= 6 else "ns"


def _body(layout: str) -> int:
    """How many characters of the layout stand before its zone."""
    match = _ISO.fullmatch(layout)
    assert match is not None
    return len(layout) - len(match[4] or "")


def parse_text(column: pa.Array, layout: str) -> np.ndarray | None:
    """Ticks int64 [n] of ISO text of this layout (local time of its zone); None where a cell is of another layout."""
    missing = pc.fill_null(pc.is_in(column, pa.array([*MISSING_WORDS, None], pa.string())), True)
    pattern = "^" + re.escape(layout[: _body(layout)]).replace("0", r"\d") + re.escape(layout[_body(layout) :]) + "$"
    if not pc.all(pc.or_(missing, pc.fill_null(pc.match_substring_regex(column, pattern), False))).as_py():
        return None
    body = pc.utf8_slice_codeunits(column, 0, _body(layout))
    try:
        moments = np.array(pc.if_else(missing, "NaT", body).to_numpy(zero_copy_only=False), dtype="U").astype(
            f"datetime64[{unit_of(layout)}]"
        )
    except ValueError:
        return None
    return moments.astype(np.int64)


def write_text(ticks: np.ndarray, layout: str) -> pa.Array:
    """Ticks int64 [n] as text of this layout; the least int64 becomes null.

    >>> write_text(np.array([3600]), "0000-00-00 00:00:00Z").to_pylist()
    ['1970-01-01 01:00:00Z']
    """
    length, unit = _body(layout), unit_of(layout)
    cells = pc.utf8_slice_codeunits(pa.array(_iso(ticks, unit), pa.string()), 0, length)
    if length > 10 and layout[10] == " ":
        cells = pc.utf8_replace_slice(cells, 10, 11, " ")
    cells = pc.binary_join_element_wise(cells, layout[length:], "")
    return pc.if_else(pa.array(ticks == _NOT_A_TIME), pa.scalar(None, pa.string()), cells)


def find_layout(column: pa.Array) -> str | None:
    """The layout that all cells of a text column share; None where they are not ISO dates."""
    kept = column.drop_null()
    kept = kept.filter(pc.invert(pc.is_in(kept, pa.array(MISSING_WORDS))))
    layout = layout_of(kept[0].as_py()) if len(kept) else None
    if layout is None:
        return None
    ticks = parse_text(kept, layout)
    return layout if ticks is not None and write_text(ticks, layout).equals(kept) else None


def unit_of_type(kind: pa.DataType) -> str:
    """The unit of an Arrow date type.

    >>> unit_of_type(pa.timestamp("ms"))
    'ms'
    """
    return "D" if pa.types.is_date32(kind) else str(kind.unit)


def ticks_of(column: pa.Array, unit: str, layout: str | None) -> np.ndarray | None:
    """Ticks int64 [n] in this unit of a date column or of ISO text; None where it is neither, or in another layout."""
    kind = column.type
    if is_text(kind):
        return parse_text(column, layout) if layout else None
    days = pa.types.is_date32(kind)
    own = column.cast(pa.int32()).cast(pa.int64()) if days else column.cast(pa.int64())
    ticks = own.fill_null(0).to_numpy(zero_copy_only=False)
    moments = ticks.astype(f"datetime64[{unit_of_type(kind)}]").astype(f"datetime64[{unit}]").astype(np.int64)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), _NOT_A_TIME, moments)


def write_ticks(ticks: np.ndarray, dates: Dates, kind: pa.DataType) -> pa.Array:
    """Ticks int64 [n] as a column of the file's own type."""
    if dates.layout is not None:
        return write_text(ticks, dates.layout).cast(kind)
    mask = ticks == _NOT_A_TIME
    if dates.unit == "D":
        return pa.array(np.where(mask, 0, ticks).astype(np.int32), pa.int32(), mask=mask).cast(kind)
    return pa.array(np.where(mask, 0, ticks), pa.int64(), mask=mask).cast(kind)
