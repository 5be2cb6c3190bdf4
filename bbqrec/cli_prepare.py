"""`bbqrec prepare SOURCE`: raw data -> data set folder, and its counts; `bbqrec download` fetches raw data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import OmitArgPrefixes, Positional
from tyro.extras import SubcommandApp

from bbqrec.datasets.amazon import AmazonSource, prepare_amazon
from bbqrec.datasets.canonical import Prepared, require_free, statistics
from bbqrec.datasets.download import OFFICIAL_SITE, FileKind, download
from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from bbqrec.datasets.tabular import TabularSource, prepare_tabular

prepare_app = SubcommandApp()
"""A source registers its command here."""


class Sha256(str):
    """64 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the data set goes."""

    out: Path
    """Folder to write; a data set that is there already is replaced."""
    name: str | None = None
    """Name in tables; the folder's name by default."""

    @property
    def label(self) -> str:
        return self.name or self.out.resolve().name


@prepare_app.command(name="amazon")
@dataclass(frozen=True, kw_only=True)
class PrepareAmazon:
    """The official Amazon 2014 files of a category, as `bbqrec download` fetches them.

    Example: bbqrec prepare amazon --category Toys_and_Games --folder raw --out data/toys
    """

    source: Annotated[AmazonSource, OmitArgPrefixes]
    output: Annotated[Output, OmitArgPrefixes]

    def run(self) -> None:
        require_free(self.output.out)
        report(prepare_amazon(self.source, self.output.out, self.output.label), self.output.out)


@prepare_app.command(name="tabular")
@dataclass(frozen=True, kw_only=True)
class PrepareTabular:
    """Any interactions table, with an optional items table and feature files.

    Example: bbqrec prepare tabular --interactions clicks.csv --items items.csv --features text=text.npz --out data/shop
    """

    source: Annotated[TabularSource, OmitArgPrefixes]
    output: Annotated[Output, OmitArgPrefixes]

    def run(self) -> None:
        require_free(self.output.out)
        report(prepare_tabular(self.source, self.output.out, self.output.label), self.output.out)


@prepare_app.command(name="synthetic")
@dataclass(frozen=True, kw_only=True)
class PrepareSynthetic:
    """Generated data with planted truth, in seconds; equal options give equal data.

    Example: bbqrec prepare synthetic --users 2000 --items 600 --out data/synthetic
    """

    output: Annotated[Output, OmitArgPrefixes]
    config: Annotated[SyntheticConfig, OmitArgPrefixes]

    def run(self) -> None:
        require_free(self.output.out)
        report(prepare_synthetic(self.config, self.output.out, self.output.label), self.output.out)


@dataclass(frozen=True, kw_only=True)
class Download:
    """Fetch the official Amazon 2014 files of a category, or what is missing of them.

    Example: bbqrec download Toys_and_Games --folder raw
    """

    category: Positional[str]
    """Category as in the names of the files."""
    folder: Path = Path("raw")
    """Where the files go."""
    kinds: tuple[FileKind, ...] = ("reviews", "meta", "images")
    """Which files: the 5-core reviews, all reviews, titles and descriptions, image features."""
    site: str = OFFICIAL_SITE
    """Web address that has the folders of the official site."""
    sha256: dict[str, Sha256] = field(default_factory=dict)
    """Hashes that the files must have, as FILE=HASH."""

    def run(self) -> None:
        found = download(self.category, self.folder, kinds=self.kinds, site=self.site, sha256=self.sha256)
        for path in found:
            print(path)


def report(prepared: Prepared, folder: Path) -> None:
    """Print what the source had to say, the row of Table 1 and the fingerprint."""
    console, dataset = Console(soft_wrap=True, highlight=False), prepared.dataset
    for note in prepared.notes:
        console.print(f"note: {note}", markup=False)
    counts = statistics(dataset)
    table = Table("data set", *counts)
    table.add_row(Text(dataset.name), *(f"{v:,.2f}" if isinstance(v, float) else f"{v:,}" for v in counts.values()))
    console.print(table)
    console.print(f"fingerprint {dataset.fingerprint}")
    console.print(f"written to {folder}", markup=False)
