"""Flat records as CSV and Parquet: the same records always give the same bytes."""

from __future__ import annotations

import csv
import io
from typing import Any

from bench.analysis.flat import Flat, Value
from bench.errors import SpecError
from bench.format import csv_text


def csv_bytes(flat: Flat) -> bytes:
    """UTF-8; null is nothing, numbers at full precision. A text that a spreadsheet would run has an apostrophe in front
    (Parquet has all texts as they are)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_text(field.name) for field in flat.fields])
    writer.writerows([_text(value) for value in row] for row in zip(*flat.values, strict=True))
    return out.getvalue().encode("utf-8", "backslashreplace")


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return csv_text(value)
    return repr(value)


def parquet_bytes(flat: Flat) -> bytes:
    """With unit and meaning of each column in its field's metadata. Raises SpecError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SpecError(
            "Parquet needs pyarrow: pip install 'peft-freeze-bench[parquet]'; or export to a .csv file"
        ) from None
    kinds = {
        "text": pyarrow.string(),
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
    }
    fields = [
        pyarrow.field(
            field.name,
            kinds[field.kind],
            metadata={"unit": field.column.unit, "description": field.column.meaning},
        )
        for field in flat.fields
    ]
    arrays = [
        pyarrow.array([_storable(value) for value in values], type=field.type)
        for field, values in zip(fields, flat.values, strict=True)
    ]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), out)
    return out.getvalue()


def _storable(value: Value) -> Any:
    """Parquet's texts are UTF-8, which has no lone surrogates."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
