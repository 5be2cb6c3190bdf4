"""The three file formats of the official Amazon 2014 data, read line by line or record by record.

reviews  a JSON record per line, with reviewerID, asin and unixReviewTime
meta     a record per line as a Python literal, with asin and, where known, title and description
images   records of a 10-byte ASIN and 4096 little-endian float32
"""

import ast
import gzip
import html
import io
import json
import re
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.progress import Progress

from bbqrec.errors import InputError
from bbqrec.files import one_line
from bbqrec.schema import Features

IMAGE_RECORD = np.dtype([("asin", "S10"), ("values", "<f4", 4096)])
ASIN = re.compile(rb"""['"]asin['"]\s*:\s*u?['"]([^'"]+)['"]""")
DAMAGED = "delete it and download it again"
MALFORMED = "repair or remove that line"


def read_reviews(path: Path, progress: Progress) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "n"]]:
    """User IDs, item IDs and times (seconds since 1970), a row per review in the order of the file."""
    user_numbers: dict[str, int] = {}  # every ID is kept once: the full files repeat them by the million
    item_numbers: dict[str, int] = {}
    users, items, times = array("q"), array("q"), array("q")
    for number, line in _lines(path, progress):
        review = _record(line, path, number)
        values: list[Any] = [review.get(field) for field in ("reviewerID", "asin", "unixReviewTime")]
        user, item, time = values
        wrong = [field for field, value in (("reviewerID", user), ("asin", item)) if not _is_id(value)]
        if type(time) is not int or abs(time) >= 2**62:
            wrong.append("unixReviewTime")
        if wrong:
            raise InputError(f"line {number} of {path} has no valid {wrong[0]}", MALFORMED)
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        items.append(item_numbers.setdefault(item, len(item_numbers)))
        times.append(time)
    if not users:
        raise InputError(f"{path} holds no reviews", DAMAGED)
    user_ids, item_ids = np.array(list(user_numbers), dtype=object), np.array(list(item_numbers), dtype=object)
    user, item, time = (np.frombuffer(column, dtype=np.int64) for column in (users, items, times))
    return user_ids[user], item_ids[item], time


def read_meta(path: Path, item_ids: np.ndarray, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Titles and texts (title and description) of `item_ids`, empty where the file has none.

    Only the lines of these items are parsed, which are few and slow to parse; of several the first counts. Raises
    InputError for a malformed line among them, a line without any ASIN, and a file that knows none of the items.
    """
    places = {item.encode(): i for i, item in enumerate(item_ids)}
    titles, texts = (np.full(len(item_ids), "", dtype=object) for _ in range(2))
    seen: set[int] = set()
    for number, line in _lines(path, progress):
        asins = ASIN.findall(line)
        if asins and not any(asin in places for asin in asins):
            continue
        meta = _record(line, path, number)
        if not _is_id(meta.get("asin")):
            raise InputError(f"line {number} of {path} has no valid asin", MALFORMED)
        place = places.get(meta["asin"].encode())
        if place is None or place in seen:
            continue
        seen.add(place)
        for field in ("title", "description"):
            if not isinstance(meta.get(field, ""), str):
                raise InputError(f"the {field} in line {number} of {path} is no text", MALFORMED)
        titles[place] = _plain(meta.get("title", ""))
        texts[place] = " ".join(filter(None, (titles[place], _plain(meta.get("description", "")))))
    if not seen:
        raise InputError(f"{path} knows no item of the reviews", "give the meta file of the same category")
    return titles, texts


def read_images(path: Path, item_ids: np.ndarray, progress: Progress) -> Features:
    """The image features of `item_ids` out of a .b file of any size, absent where it has none.

    Raises InputError for a file that is cut off or holds something else, for NaN and for one that knows no item.
    """
    total, rest = divmod(path.stat().st_size, IMAGE_RECORD.itemsize)
    if rest:
        what = f"{path} is cut off in record {total + 1} ({rest} of {IMAGE_RECORD.itemsize} bytes)"
        raise InputError(what, DAMAGED)
    places = {item.encode(): i for i, item in enumerate(item_ids)}
    values = np.zeros((len(item_ids), IMAGE_RECORD["values"].shape[0]), dtype=np.float32)
    present = np.zeros(len(item_ids), dtype=bool)
    task, first = progress.add_task(path.name, total=total), 1
    with path.open("rb") as file:
        while len(records := np.fromfile(file, IMAGE_RECORD, count=256)):
            strange = np.flatnonzero(~np.char.isalnum(records["asin"]))
            if len(strange):
                raise InputError(f"record {first + strange[0]} of {path} does not start with an ASIN", DAMAGED)
            for row, asin in enumerate(records["asin"].tolist()):
                place = places.get(asin)
                if place is None or present[place]:
                    continue
                values[place], present[place] = records["values"][row], True
                if not np.isfinite(values[place]).all():
                    raise InputError(f"record {first + row} of {path}, {asin.decode()}, is not finite", DAMAGED)
            first += len(records)
            progress.advance(task, len(records))
    if not present.any():
        raise InputError(f"{path} knows no item of the reviews", "give the image features of the same category")
    return Features(values=values, present=present)


def _lines(path: Path, progress: Progress) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, gzipped or not, that are not blank, with their numbers from 1."""
    task, number = progress.add_task(f"{path.name} (MiB)", total=max(path.stat().st_size >> 20, 1)), 0
    with path.open("rb") as raw:
        file = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20) if path.suffix == ".gz" else raw
        try:
            for number, line in enumerate(file, 1):
                if number % 10_000 == 0:
                    progress.update(task, completed=raw.tell() >> 20)
                if not line.isspace():
                    yield number, line
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path} is cut off or damaged after line {number} ({one_line(error)})", DAMAGED
            ) from error
    progress.update(task, completed=max(path.stat().st_size >> 20, 1))


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """A line in either form of the official files, JSON or a Python literal; nothing is evaluated."""
    try:
        text = line.decode().strip()
        record = json.loads(text) if text.startswith('{"') else ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        what = f"line {number} of {path} is neither a JSON record nor a Python literal ({one_line(error)})"
        raise InputError(what, MALFORMED) from error
    if not isinstance(record, dict):
        raise InputError(f"line {number} of {path} is no record in braces", MALFORMED)
    return record


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _plain(text: str) -> str:
    """Without HTML entities, line breaks and halves of surrogate pairs, which no UTF-8 file can hold."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(html.unescape(text).split())
