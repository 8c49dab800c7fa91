"""Records as a pandas DataFrame, one row each, under the columns of ``bench.records.columns``; as CSV and Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError
from bench.format import csv_text
from bench.records.columns import LEFT_OUT, STALE, Kind, columns, describe
from bench.records.record import CellRecord
from bench.registry import did_you_mean
from bench.spec.diagnostics import dotted

# pandas takes a second to import, so only what makes a frame does it.
if TYPE_CHECKING:
    from pandas import DataFrame, Series

SETTINGS = ("model", "task", "data", "train", "evaluate", "methods", "run")
"""Of ``settings``; the rest of it are columns of their own."""
_DTYPES = {"text": "string[python]", "integer": "Int64", "number": "Float64", "boolean": "boolean"}
"""Kind of a column's values -> its dtype; all have nulls."""


def to_frame(
    records: Sequence[CellRecord], wanted: Sequence[str] = (), stale: Sequence[str | None] | None = None
) -> DataFrame:
    """One row per record in their order.

    ``wanted``: names of columns, or globs; empty: all. ``stale``: of each record why it is not that of its cell as it
    is now; null if it is. Every frame has the fixed columns, null or not, and among them those that the records' keys
    make, if any is not null. Raises SpecError for a name that no column has.
    """
    import pandas as pd

    reasons = stale if stale is not None else [None] * len(records)
    contents = ({**_content(record), STALE.name: why} for record, why in zip(records, reasons, strict=True))
    rows = [{key: value for key, value in leaves(content) if value is not None} for content in contents]
    data, dtypes = {}, {}
    for name in _selected(_names(rows), wanted):
        raw, kind = [row.get(name) for row in rows], describe(name).kind
        if kind in ("any", "json"):
            kind = _common_kind(raw)
        data[name], dtypes[name] = [_converted(kind, value) for value in raw], _DTYPES[kind]
    return pd.DataFrame(data, index=range(len(rows)), dtype=object).astype(dtypes)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of all that is no mapping."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from leaves(below, (*path, str(key)))
    else:
        yield dotted(path), value


def csv_bytes(frame: DataFrame) -> bytes:
    """UTF-8; a null is empty, numbers have full precision, and no text runs in a spreadsheet (see ``csv_text``)."""
    import pandas as pd

    data = {csv_text(str(name)): [_csv_value(value) for value in _values(column)] for name, column in frame.items()}
    shown = pd.DataFrame(data, index=range(len(frame)), dtype=object)
    return shown.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")


def parquet_bytes(frame: DataFrame) -> bytes:
    """With unit and meaning of each column in its field's metadata. Raises SpecError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SpecError(
            "Parquet needs pyarrow: pip install 'peft-freeze-bench[parquet]'; or export to a .csv file"
        ) from None
    types = {
        "string": pyarrow.string(),
        "Int64": pyarrow.int64(),
        "Float64": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
    }
    fields, arrays = [], []
    for name, column in frame.items():
        about = describe(str(name))
        metadata = {"unit": about.unit, "description": about.meaning}
        fields.append(pyarrow.field(name, types[str(column.dtype)], metadata=metadata))
        # Parquet's texts are UTF-8, which has no lone surrogates.
        values = [v.encode("utf-8", "backslashreplace") if isinstance(v, str) else v for v in _values(column)]
        arrays.append(pyarrow.array(values, type=fields[-1].type))
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), out)
    return out.getvalue()


def _values(column: Series[Any]) -> list[Any]:
    """With ``None`` for a null."""
    return [value if known else None for value, known in zip(column.tolist(), column.notna(), strict=True)]


def _csv_value(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else csv_text(value) if isinstance(value, str) else value


def _content(record: CellRecord) -> dict[str, Any]:
    """The record with its scores in the same fields, whichever version wrote it."""
    content = record.model_dump(mode="json", by_alias=True, exclude=set(LEFT_OUT))
    scores = record.scores or (record.accuracy.scores() if record.accuracy else {})
    content["scores"] = {name: score.model_dump() for name, score in scores.items()}
    content["baselines"] = {
        baseline: {name: score.model_dump() for name, score in each.items()}
        for baseline, each in record.baseline_scores().items()
    }
    content["settings"] = {key: record.settings[key] for key in SETTINGS if key in record.settings}
    return content


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """In the order of the schema; those of one pattern as they first appear."""
    found: dict[str, dict[str, None]] = {column.name: {} for column in columns()}
    for column in columns():
        if column.fixed and not column.name.startswith("environment."):
            found[column.name][column.name] = None
    for row in rows:
        for name in row:
            found[describe(name).name].setdefault(name)
    return [name for names in found.values() for name in names]


def _selected(names: Sequence[str], wanted: Sequence[str]) -> Sequence[str]:
    if not wanted:
        return names
    chosen: dict[str, None] = {}
    for word in wanted:
        matching = [name for name in names if name == word or fnmatchcase(name, word)]
        if not matching:
            raise SpecError(f"--columns {word}: no such column{did_you_mean(word, list(names))}; see docs/columns.md")
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def _common_kind(raw: Sequence[Any]) -> Kind:
    """The narrowest kind of all values that are not null."""
    kinds: set[Kind] = {_kind_of(value) for value in raw if value is not None}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "text"


def _kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) < 2**63 else "text"
    return "number" if isinstance(value, float) else "text"


def _converted(kind: Kind, value: Any) -> str | int | float | bool | None:
    """A value of this kind, for texts the JSON of anything else; null for one that cannot be of the kind."""
    if value is None:
        return None
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    if kind == "number" and _kind_of(value) in ("integer", "number"):
        return float(value)
    converted: int | float | bool | None = value if _kind_of(value) == kind else None
    return converted
