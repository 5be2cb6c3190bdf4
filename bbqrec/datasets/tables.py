"""Tables in parquet, csv or tsv files, read batch by batch so that a file may be larger than memory."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from bbqrec.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ROWS, BYTES = 2**18, 2**24
"""Of a batch: of parquet the rows, of text the bytes."""


def read_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The named columns; in text files every value stays a string, "" becomes missing.

    Raises InputError for a file that is missing, malformed or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "check the path")
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix != ".parquet" and suffix not in SEPARATORS:
        raise InputError(f"{path} is neither parquet, csv nor tsv", "convert it, or give it the right ending")
    try:
        if suffix == ".parquet":
            _require(path, pq.read_schema(path).names, columns)
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=ROWS, columns=columns)
        else:
            yield from _text(path, SEPARATORS[suffix], columns)
    except (OSError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path} ({reason})", "write the file again") from error


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """`read_batches` as one table."""
    batches = list(read_batches(path, columns))
    return pa.Table.from_batches(batches).select(columns).to_pandas() if batches else pd.DataFrame(columns=columns)


def _text(path: Path, separator: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # Strict where pandas is not: a row with a field too many is an error, not cut or shifted.
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        _require(path, reader.schema.names, columns)
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    read = csv.ReadOptions(block_size=BYTES)
    with csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
        yield from reader


def _require(path: Path, found: list[str], columns: list[str]) -> None:
    absent = [c for c in columns if c not in found]
    if absent:
        raise InputError(f"{path} has no column {absent[0]!r}", f"name one of its columns: {', '.join(found)}")
