"""Other people's frames <-> tables: polars, pandas, arrays, tensors, dictionaries go in, and come back as they were."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pyarrow as pa

from diffeo.data import files
from diffeo.data.arrays import array_table
from diffeo.data.arrow import check_names, is_number, numbers, one_line, plain, whole
from diffeo.errors import DataError

Restore = Callable[[pa.Table], Any]


def to_table(data: Any) -> tuple[pa.Table, Restore]:
    """(table, restore): the data as a table in plain types, and how a table becomes the same kind of thing again.

    A path or `-` -> pyarrow.Table; pyarrow tables and record batches; pandas (its index is not a column), polars and
    whatever narwhals knows -> the same kind of frame; an array [n, d] or [n] -> float64 array [n, d] or [n]; a
    tensor -> a float64 or float32 tensor on its device; a dictionary of sequences -> a dictionary of lists.

    Raises DataError for anything else, a wrong number of dimensions, complex numbers.

    >>> table, restore = to_table({"a": [1, 2]})
    >>> restore(table)
    {'a': [1, 2]}
    """
    if isinstance(data, str | os.PathLike):
        return files.read(os.fspath(data)), lambda table: table
    if isinstance(data, pa.Table | pa.RecordBatch):
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        return plain(table), lambda table: table
    if isinstance(data, np.ndarray):
        return plain(array_table(data)), _array_maker(data)
    if hasattr(data, "detach") and hasattr(data, "cpu"):
        return _from_tensor(data)
    if nw.dependencies.is_pandas_dataframe(data):
        return _from_pandas(data)
    if isinstance(data, Mapping):
        return _from_mapping(data)
    return _from_any_frame(data)


def _array_maker(like: np.ndarray) -> Restore:
    if like.dtype.names:
        return lambda table: table
    flat = like.ndim == 1

    def restore(table: pa.Table) -> np.ndarray:
        if not all(is_number(kind) or pa.types.is_boolean(kind) for kind in table.schema.types):
            cells = np.array([column.to_pylist() for column in table.columns], object).T
            return cells[:, 0] if flat and cells.shape[1] == 1 else cells
        x = np.stack([numbers(whole(column)) for column in table.columns], axis=1)
        return x[:, 0] if flat and x.shape[1] == 1 else x

    return restore


def _from_tensor(data: Any) -> tuple[pa.Table, Restore]:
    host = data.detach().cpu()
    try:
        array = np.asarray(host.numpy())
    except TypeError:  # bfloat16 has no NumPy type
        array = np.asarray(host.float().numpy())
    to_array = _array_maker(array)

    def restore(table: pa.Table) -> Any:
        fresh = data.new_tensor(to_array(table).astype(array.dtype if array.dtype.kind == "f" else np.float64).tolist())
        return fresh if data.is_floating_point() else fresh.double()

    return plain(array_table(array, where="the tensor")), restore


def _from_pandas(data: Any) -> tuple[pa.Table, Restore]:
    labels = list(data.columns)
    check_names([str(label) for label in labels], "the pandas frame")
    try:
        table = pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as fault:
        raise DataError(f"the pandas frame has a column of mixed or foreign cells ({one_line(fault)})") from fault
    by_name = {str(label): label for label in labels}
    dtypes = {str(label): dtype for label, dtype in zip(labels, data.dtypes, strict=True)}

    def restore(out: pa.Table) -> Any:
        frame = out.to_pandas()
        for name in out.column_names:
            if name in dtypes and frame[name].dtype != dtypes[name]:
                try:
                    frame[name] = frame[name].astype(dtypes[name])
                except (TypeError, ValueError):
                    continue  # such as missing cells in whole numbers
        return frame.rename(columns=by_name)

    return plain(table, "the pandas frame"), restore


def _from_mapping(data: Mapping[Any, Any]) -> tuple[pa.Table, Restore]:
    columns: dict[str, Any] = {}
    for key, cells in data.items():
        try:
            values = cells.detach().cpu().numpy() if hasattr(cells, "detach") else cells
            columns[str(key)] = whole(array_table(values)["x0"]) if isinstance(values, np.ndarray) else pa.array(values)
        except (pa.ArrowException, TypeError, KeyError, OverflowError) as fault:
            raise DataError(f"the column {str(key)!r} is no sequence of numbers, text, booleans or dates") from fault
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        listed = ", ".join(f"{name}: {len(column)}" for name, column in list(columns.items())[:6])
        raise DataError(f"the columns of the dictionary differ in length ({listed})")
    return plain(pa.table(columns), "the dictionary"), lambda table: table.to_pydict()


def _from_any_frame(data: Any) -> tuple[pa.Table, Restore]:
    try:
        frame = nw.from_native(data, allow_series=True)
    except TypeError as fault:
        raise DataError(
            f"cannot read {type(data).__name__} as a table; give a path, a pandas, polars or pyarrow table, an array, "
            "a tensor, or a dictionary of columns"
        ) from fault
    if isinstance(frame, nw.Series):
        frame = frame.to_frame()
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if nw.dependencies.is_polars_dataframe(native := nw.to_native(frame)):
        return plain(frame.to_arrow(), "the polars frame"), _polars_maker(native)
    namespace = nw.get_native_namespace(frame)

    def restore(table: pa.Table) -> Any:
        return nw.to_native(nw.from_arrow(table, native_namespace=namespace))

    return plain(frame.to_arrow(), "the frame"), restore


def _polars_maker(like: Any) -> Restore:
    """Tables as polars frames, with the types that the columns of the first one had."""
    dtypes = dict(like.schema)

    def restore(table: pa.Table) -> Any:
        frame = nw.to_native(nw.from_arrow(table, native_namespace=nw.get_native_namespace(like)))
        return frame.cast({name: dtypes[name] for name in frame.columns if name in dtypes}, strict=False)

    return restore


def restorer(kind: str) -> Restore:
    """How a table becomes a frame of a kind, where no frame of it is at hand: array, vector, tensor, dict, pandas,
    polars; anything else stays a table.

    >>> restorer("vector")(pa.table({"a": [1, 2]}))
    array([1., 2.])
    """
    if kind == "tensor":
        import torch

        return _from_tensor(torch.zeros(1, 2, dtype=torch.float64))[1]
    if kind in ("array", "vector"):
        return _array_maker(np.zeros((1, 2) if kind == "array" else 1))
    if kind == "dict":
        return lambda table: table.to_pydict()
    if kind in ("pandas", "polars"):
        return lambda table: nw.to_native(nw.from_arrow(table, native_namespace=importlib.import_module(kind)))
    return lambda table: table
