"""The page again and again while a study runs."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.claims import claims
from analysis.page.model import page_model
from analysis.page.render import put, render
from analysis.whole import Source, Whole, load_whole
from bbqrec.errors import InputError

log = logging.getLogger(__name__)


def watch_page(
    source: Source,
    out: str | Path,
    every: int,
    judge: Callable[[Whole], Sequence[Any]] = claims,
    rounds: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Path]:
    """Writes the page every so many seconds, `rounds` times or until it is interrupted; an open page reloads itself.

    A source that cannot be read for a moment leaves the page as it was. Once stopped, the last page reloads no more.
    Raises InputError for a source that is not there at the beginning, and for an unwritable `out`.
    """
    if every < 1:
        raise InputError(f"--watch {every} is no time between two pages", "give at least 1 second")
    whole = load_whole(source, needed=False)
    try:
        for count in itertools.count() if rounds is None else range(rounds):
            if count:
                sleep(every)
                try:
                    whole = load_whole(source, needed=False)
                except InputError as error:
                    log.warning("the page stays as it was: %s", error.what)
                    continue
            yield put(render(page_model(whole, judge(whole), refresh=every, built=_now())), out)
    finally:
        put(render(page_model(whole, judge(whole), built=_now())), out)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
