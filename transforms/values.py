"""Arrow values as Python's plain ones; what these cannot hold comes as text, the same whatever else is installed.

A column that nobody asked for must not stop a run: a year beyond 9999, a time zone that nobody knows, nanoseconds (for
which Arrow wants pandas), text that is not valid UTF-8.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

# What Python's types raise for values that they cannot hold; unknown time zones are LookupErrors.
_CANNOT_HOLD = (ValueError, ArithmeticError, LookupError, pa.ArrowException)


def plain_values(column: pa.Array) -> list[Any]:
    """Give a column as Python values."""
    if not _has_nanoseconds(column.type):
        try:
            return list(column.to_pylist())
        except _CANNOT_HOLD:
            pass  # some value needs a closer look
    return [plain_value(scalar) for scalar in column]


def plain_value(scalar: Any) -> Any:
    """Give one Arrow value as a Python value."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if kinds.is_dictionary(kind):
        return plain_value(scalar.value)
    if kinds.is_struct(kind):
        return {kind.field(number).name: plain_value(scalar[number]) for number in range(kind.num_fields)}
    if kinds.is_map(kind):
        return [[plain_value(item["key"]), plain_value(item["value"])] for item in scalar.values]
    if kinds.is_nested(kind) and hasattr(scalar, "values"):
        return [plain_value(item) for item in scalar.values]
    try:
        return _text(scalar) if _has_nanoseconds(kind) else scalar.as_py()
    except _CANNOT_HOLD:
        return _text(scalar)


def _text(scalar: Any) -> str:
    if hasattr(scalar, "as_buffer"):
        return bytes(scalar.as_buffer()).decode("utf-8", "replace")
    try:
        return str(scalar.cast(pa.string()).as_py())
    except pa.ArrowException:
        return str(scalar.cast(pa.int64()).as_py())


def _has_nanoseconds(kind: pa.DataType) -> bool:
    if kinds.is_dictionary(kind):
        return _has_nanoseconds(kind.value_type)
    if kinds.is_nested(kind):
        return any(_has_nanoseconds(kind.field(number).type) for number in range(kind.num_fields))
    return kinds.is_temporal(kind) and getattr(kind, "unit", None) == "ns"
