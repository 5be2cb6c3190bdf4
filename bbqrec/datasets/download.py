"""The official Amazon 2014 files of one category, fetched resumably and checked.

The site publishes no checksums. So the SHA-256 of a first download is written to `registry.txt` beside the files
(pooch's format: a name and a hash per line), and every later look compares with it. What has arrived of an unfinished
file stays as `<name>.part`; `<name>.part.version` holds the server's mark of the version that it is a part of.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pooch
import requests
from rich.progress import Progress
from urllib3.exceptions import HTTPError as TransferError

from bbqrec.datasets.amazon import ALL_REVIEWS, IMAGES, META, REVIEWS
from bbqrec.datasets.progress import progress_bar
from bbqrec.errors import InputError
from bbqrec.files import one_line, replace_file

OFFICIAL_SITE = "https://snap.stanford.edu/data/amazon/productGraph"

FileKind = Literal["reviews", "all-reviews", "meta", "images"]
"""The 5-core reviews, all reviews, titles and descriptions, image features."""

PLACES: dict[FileKind, str] = {
    "reviews": f"categoryFiles/{REVIEWS}",
    "all-reviews": f"categoryFiles/{ALL_REVIEWS}",
    "meta": f"categoryFiles/{META}",
    "images": f"image_features/categoryFiles/{IMAGES}",
}
"""Where the site keeps the files of a category."""

CATEGORIES = (
    "Amazon_Instant_Video, Apps_for_Android, Automotive, Baby, Beauty, Books, CDs_and_Vinyl, "
    "Cell_Phones_and_Accessories, Clothing_Shoes_and_Jewelry, Digital_Music, Electronics, Grocery_and_Gourmet_Food, "
    "Health_and_Personal_Care, Home_and_Kitchen, Kindle_Store, Movies_and_TV, Musical_Instruments, Office_Products, "
    "Patio_Lawn_and_Garden, Pet_Supplies, Sports_and_Outdoors, Tools_and_Home_Improvement, Toys_and_Games, Video_Games"
)
"""The 24 of the site, for messages; another site may have others."""

CHUNK = 1 << 16
"""Bytes that are lost at most when a transfer breaks."""

TIMEOUTS = (10, 60)
"""Seconds to connect, and without a byte."""

AGAIN = "run the same command again to go on where it stopped"


def download(
    category: str,
    folder: Path = Path("raw"),
    *,
    kinds: Sequence[FileKind] = ("reviews", "meta", "images"),
    site: str = OFFICIAL_SITE,
    sha256: Mapping[str, str] | None = None,
    pauses: Sequence[float] = (1.0, 5.0, 20.0),
) -> tuple[Path, ...]:
    """Fetch what `folder` lacks of the category's files and return their paths; `sha256` gives hashes by file name.

    A transfer that breaks is tried again after each of `pauses` (seconds). A file that is there is checked, and fetched
    again if it is not what it was. Raises InputError for a file that does not exist, cannot be fetched or written, or
    has another hash than was given or recorded.
    """
    urls = _urls(category, kinds, site)
    given = {name: value.lower() for name, value in (sha256 or {}).items()}
    for name, value in given.items():
        if name not in urls or not re.fullmatch("[0-9a-f]{64}", value):
            remedy = f"give 64 hexadecimal digits for one of {', '.join(urls)}"
            raise InputError(f"{name}={value} is no SHA-256 of a file to fetch", remedy)
    pooch.get_logger().setLevel("WARNING")  # it would repeat what the progress bar and the registry say
    registry = folder / "registry.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recorded = _recorded(registry)
        keeper = pooch.create(folder, site, registry={**dict.fromkeys(urls), **recorded, **given}, urls=urls)
        with progress_bar() as progress:
            for name, url in urls.items():
                downloader = ResumingDownloader(folder / f"{name}.part", pauses, progress)
                try:
                    keeper.fetch(name, downloader=downloader)
                except ValueError as error:
                    remedy = (
                        f"fetch it again; if the file has changed for good, correct its hash, given or in {registry}"
                    )
                    raise InputError(f"{url}: {str(error).partition('. ')[0]}", remedy) from error
                found = keeper.registry[name] or pooch.file_hash(str(folder / name))
                if recorded.get(name) != found:
                    recorded[name] = found
                    lines = (f"{key} {value}\n" for key, value in sorted(recorded.items()))
                    replace_file(registry, "".join(lines).encode())
    except OSError as error:
        what = f"cannot write to {folder} ({error.strerror or error})"
        raise InputError(what, "free space there or choose a writable folder") from error
    return tuple(folder / name for name in urls)


class ResumingDownloader:
    """A downloader for pooch that goes on from the file `part`, which stays when the transfer breaks."""

    def __init__(self, part: Path, pauses: Sequence[float], progress: Progress) -> None:
        self._part = part
        self._version = part.with_name(f"{part.name}.version")
        self._pauses = pauses
        self._progress = progress

    def __call__(self, url: str, output_file: str, _keeper: object) -> None:
        task = self._progress.add_task(f"{self._part.stem} (MiB)", total=None)
        for pause in (*self._pauses, None):
            try:
                for arrived, total in self._arriving(url):
                    self._progress.update(task, completed=arrived >> 20, total=total and total >> 20)
                break
            except (requests.RequestException, TransferError, _BrokenTransfer) as error:
                if pause is None or isinstance(error, ValueError):
                    raise InputError(f"cannot fetch {url} ({_cause(error)})", AGAIN) from error
                time.sleep(pause)
        self._part.replace(output_file)
        self._version.unlink(missing_ok=True)

    def _arriving(self, url: str) -> Iterator[tuple[int, int | None]]:
        """Append what is still missing; yields the bytes that are there and the bytes in all, where they are known."""
        have = self._part.stat().st_size if self._part.exists() else 0
        version = self._version.read_text() if self._version.exists() else ""
        headers = {"Accept-Encoding": "identity"}
        if have and version:  # If-Range: the rest if it is still the same file, otherwise the whole new one
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
                return  # no rest: all of it is there
            self._refuse(response)
            resumes = response.status_code == 206
            length = response.headers.get("Content-Length")
            total = None if length is None else int(length) + (have if resumes else 0)
            if resumes and not (
                response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
                and _version(response) in ("", version)
            ):
                self._part.unlink()
                raise _BrokenTransfer("the server sent another part than was asked for")
            with self._part.open("ab" if resumes else "wb") as file:
                if not resumes:  # only now that the file is empty: a part must never be older than its version
                    self._version.write_text(_version(response))
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    yield file.tell(), total
                arrived = file.tell()
        if total is not None and arrived != total:  # urllib3 says so itself from version 2 on
            raise _BrokenTransfer(f"it broke off after {arrived:,} of {total:,} bytes")

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 404:
            raise InputError(f"{response.url} does not exist", f"use another --site or one of {CATEGORIES}")
        if status == 416:
            self._part.unlink(missing_ok=True)
            raise _BrokenTransfer("the server has less than had arrived")
        if 400 <= status < 500 and status not in (408, 429):
            raise InputError(f"{response.url} is refused ({status} {response.reason})", "use another --site")
        response.raise_for_status()


class _BrokenTransfer(Exception):
    """What arrived is not what was announced."""


def _cause(error: BaseException) -> str:
    """What began it: requests and urllib3 each wrap a refused connection in a paragraph of their own."""
    while error.__context__ is not None:
        error = error.__context__
    return one_line(error)


def _version(response: requests.Response) -> str:
    """The server's mark of the file's version, empty if it has none that allows to go on with a part."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _urls(category: str, kinds: Sequence[FileKind], site: str) -> dict[str, str]:
    """The URL of every file by its name."""
    if not re.fullmatch(r"\w+", category, re.ASCII):
        raise InputError(f"{category!r} is no category", f"use one of {CATEGORIES}")
    if not re.match(r"https?://\w", site):
        raise InputError(f"site {site} is no web address", "give one that starts with https:// or http://")
    if not kinds:
        raise InputError("no files to fetch", f"name some of {', '.join(PLACES)}")
    places = [PLACES[kind].format(category) for kind in kinds]
    return {place.rpartition("/")[2]: f"{site.rstrip('/')}/{place}" for place in places}


def _recorded(registry: Path) -> dict[str, str]:
    """The hashes of earlier downloads by file name."""
    if not registry.exists():
        return {}
    reader = pooch.create(registry.parent, "")
    try:
        reader.load_registry(str(registry))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {registry} ({one_line(error)})", "repair that line or delete the file"
        ) from error
    return dict(reader.registry)
