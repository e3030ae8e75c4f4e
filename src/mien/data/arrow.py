"""What pyarrow reads: schemas of Parquet and Arrow files, and their columns as words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mien.data.tables import MOST_COLUMNS, Row, Table, UnusableTable, scalar
from mien.errors import UsageError
from mien.storage import bounded_json

IMAGE_TITLES = ("image", "img", "picture", "photo", "face", "jpg", "png", "pixel_values")
MOST_ROWS = 1_000_000  # that a file may hold whatever its size; above it, a byte for each at least


def import_pyarrow(what: str) -> Any:
    """pyarrow, which an extra brings. Raises UsageError without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"{what} needs pyarrow.", f"{error}.", "Install it: pip install 'mien[tables]'.") from error
    return pyarrow


def image_columns(schema: Any) -> list[str]:
    """The columns that hold images: bytes, or a struct with bytes as the Hub writes it; likely titles first.

    Raises ValueError where two columns have one name.
    """
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("two of its columns have one name")
    types = import_pyarrow("Parquet").types
    kinds = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return any(fits(kind.value_type if types.is_dictionary(kind) else kind) for fits in kinds)

    found = [field.name for field in schema if holds_bytes(field.type)]
    return sorted(found, key=lambda name: IMAGE_TITLES.index(name) if name in IMAGE_TITLES else len(IMAGE_TITLES))


def word_columns(schema: Any) -> list[str]:
    """The columns of words and numbers."""
    types = import_pyarrow("Parquet").types
    images = image_columns(schema)
    return [field.name for field in schema if field.name not in images and not types.is_nested(field.type)]


def split_names(values: list[Any], known: list[str] | None) -> list[str]:
    """Values as cells; class numbers by their names."""
    if known:
        values = [known[value] if isinstance(value, int) and 0 <= value < len(known) else None for value in values]
    return [scalar(value) for value in values]


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of class numbers, by column, from the metadata that Hugging Face writes into a schema."""
    try:
        features = bounded_json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: list(map(str, kind["names"]))
            for name, kind in features.items()
            if isinstance(kind, dict) and kind.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def parquet_table(name: str, data: bytes) -> Table:
    """A Parquet file beside pictures, as a table. Raises UnusableTable."""
    if find_spec("pyarrow") is None:
        raise UnusableTable("It needs pyarrow. Install it: pip install 'mien[tables]'; or save the table as CSV.")
    pyarrow = import_pyarrow(name)
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        pictures = image_columns(file.schema_arrow)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnusableTable(f"It does not parse: {error}. Save it again.") from error
    titles = word_columns(file.schema_arrow)
    if pictures:
        raise UnusableTable("It holds pictures itself. Give it as a source of its own.")
    if file.metadata.num_rows > max(MOST_ROWS, len(data)) or not 0 < len(titles) <= MOST_COLUMNS:
        raise UnusableTable(f"It promises {file.metadata.num_rows:,} rows of {len(titles):,} columns. Save it again.")
    classes = class_names(file.schema_arrow.metadata)

    def rows() -> Iterator[Row]:
        for batch in file.iter_batches(columns=titles):
            columns = [split_names(batch.column(title).to_pylist(), classes.get(title)) for title in titles]
            yield from map(list, zip(*columns, strict=True))

    return Table(name=name, titles=tuple(titles), rows=rows)
