"""Rows of Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from strop_trainer.errors import bad_configuration
from strop_trainer.row_files.columns import Table
from strop_trainer.row_files.lines import CHUNK
from strop_trainer.row_files.problems import Placed

BATCH_ROWS: Final = 64
"""Rows of a Parquet file that are in memory at a time."""


def parquet_rows(table: Table) -> Iterator[Placed]:
    """Yield the rows of a Parquet file, of its columns those that the task reads.

    Numbers that stand for class names, as the `datasets` library writes them, are given as names.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - only where it is used
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise bad_configuration(
            f"dataset {table.file.name}: Parquet is read by pyarrow, which is not installed here; "
            "`make env` in a checkout installs it"
        ) from None

    try:
        with pq.ParquetFile(table.file.path, buffer_size=CHUNK, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if not table.accepts(names):
                return
            wanted = {table.mapping.get(name, name) for name in table.columns.names}
            twice = {name for name in names if name in wanted and names.count(name) > 1}
            if twice:
                table.problems.add_file(table.file.name, f"found column {min(twice)} more than once")
                return
            classes = _class_names(file.schema_arrow)
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in names if name in wanted]):
                for row in _batch_rows(batch):
                    number += 1
                    if isinstance(row, UnicodeDecodeError):
                        table.problems.add(
                            table.file.name, f"row {number}", f"not UTF-8 (0x{row.object[row.start]:02x})"
                        )
                        continue
                    named = {name: _named(value, classes.get(name)) for name, value in row.items()}
                    yield f"row {number}", table.renamed(named)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        table.problems.add_file(table.file.name, f"cannot be read as Parquet: {str(error).splitlines()[0]}")


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # before the first row is given: one of them is broken
        for index in range(batch.num_rows):
            try:
                yield {name: batch.column(name)[index].as_py() for name in batch.schema.names}
            except UnicodeDecodeError as error:
                yield error


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return column → names of its classes, from what the `datasets` library writes beside the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature
        while isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
