"""The official Amazon 2014 files of one category, fetched resumably and checked.

The site publishes no checksums. So the SHA-256 of a first download is written to `registry.txt` beside the files
(pooch's format: a name and a hash per line), and every later look compares with it. What has arrived of an unfinished
file stays as `<name>.part`; `<name>.part.version` holds the server's mark of the version that it is a part of.
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import pooch
import requests
from rich.progress import Progress
from urllib3.exceptions import HTTPError as TransferError

from bbqrec.datasets.amazon import ALL_REVIEWS, IMAGES, META, REVIEWS
from bbqrec.datasets.progress import progress_bar
from bbqrec.errors import InputError
from bbqrec.files import replace_file

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
    "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl Cell_Phones_and_Accessories "
    "Clothing_Shoes_and_Jewelry Digital_Music Electronics Grocery_and_Gourmet_Food Health_and_Personal_Care "
    "Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden "
    "Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
).split()

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
    pauses: Sequence[float] = (1, 5, 20),
) -> tuple[Path, ...]:
    """Fetch what `folder` lacks of the category's files and return their paths; `sha256` gives hashes by file name.

    A transfer that breaks is tried again after each of `pauses` (seconds). A file that is there is checked, and fetched
    again if it is not what it was. Raises InputError for a file that does not exist, cannot be fetched or written, or
    has another hash than was given or recorded.
    """
    names = _urls(category, kinds, site)
    for name, value in (sha256 or {}).items():
        if name not in names or not re.fullmatch("[0-9a-fA-F]{64}", value):
            remedy = f"give 64 hexadecimal digits for one of {', '.join(names)}"
            raise InputError(f"{name}={value} is no SHA-256 of a file to fetch", remedy)
    pooch.get_logger().setLevel("WARNING")  # it would repeat what the progress bar and the registry say
    registry = folder / "registry.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recorded = _recorded(registry)
        keeper = pooch.create(folder, site, registry={**dict.fromkeys(names), **recorded, **(sha256 or {})}, urls=names)
        with progress_bar() as progress:
            for name, url in names.items():
                downloader = ResumingDownloader(folder / f"{name}.part", pauses, progress)
                try:
                    keeper.fetch(name, downloader=downloader)
                except ValueError as error:
                    remedy = f"{AGAIN}; if the file has changed for good, correct its hash or its line in {registry}"
                    raise InputError(f"{url}: {str(error).partition('. ')[0]}", remedy) from error
                found = keeper.registry[name] or pooch.file_hash(str(folder / name))
                if recorded.get(name) != found:
                    recorded[name] = found
                    lines = (f"{key} {value}\n" for key, value in sorted(recorded.items()))
                    replace_file(registry, "".join(lines).encode())
    except OSError as error:
        what = f"cannot write to {folder} ({error.strerror or error})"
        raise InputError(what, "free space there or choose a writable folder") from error
    return tuple(folder / name for name in names)


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
            except (requests.RequestException, TransferError, _Broken) as error:
                if pause is None or isinstance(error, ValueError):
                    raise InputError(f"cannot fetch {url} ({error})", AGAIN) from error
                time.sleep(pause)
        self._part.replace(output_file)
        self._version.unlink(missing_ok=True)
