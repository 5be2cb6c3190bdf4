"""The official Amazon 2014 files of one category (McAuley et al.) -> a canonical data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.progress import Progress

from bbqrec.datasets.amazon_files import read_images, read_meta, read_reviews
from bbqrec.datasets.canonical import Prepared, save_dataset
from bbqrec.datasets.core import Interactions, index_interactions
from bbqrec.datasets.features import align, read_features
from bbqrec.datasets.progress import progress_bar
from bbqrec.datasets.text import DEFAULT_MODEL, embed, load_encoder
from bbqrec.errors import InputError
from bbqrec.schema import Features

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

REVIEWS, ALL_REVIEWS = "reviews_{}_5.json.gz", "reviews_{}.json.gz"
META = "meta_{}.json.gz"
IMAGES = "image_features_{}.b"


@dataclass(frozen=True, kw_only=True)
class AmazonSource:
    """The files of a category, and what to take from them."""

    category: str | None = None
    """Category as in the names of the files, for instance Toys_and_Games."""
    folder: Path = Path("raw")
    """Folder of the official files, as `bbqrec download` leaves them."""
    reviews: Path | None = None
    """Reviews; by default the category's 5-core file in the folder, else its full one."""
    meta: Path | None = None
    """Titles and descriptions; by default the category's file in the folder."""
    images: Path | None = None
    """Image features, .b or any feature file; by default the category's .b file in the folder."""
    text_features: Path | None = None
    """Feature file (.npz with item_ids and features, or parquet) to take instead of embedding the texts."""
    text: bool = True
    """Take the text modality: title and description of every item."""
    image: bool = True
    """Take the image modality."""
    core: int = 5
    """Remove users and items with fewer reviews than this, until there are none; changes nothing in a 5-core file."""
    model: str = DEFAULT_MODEL
    """Any sentence-transformers model for the texts: a name or a local folder."""
    batch_size: int = 32
    """Texts that the model embeds at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes the GPU if there is one."""

    def __post_init__(self) -> None:
        if self.core < 0:
            raise InputError(f"--core {self.core} is negative", "give 0 to keep all")


def prepare_amazon(source: AmazonSource, out: Path, name: str) -> Prepared:
    """Read the source and write the data set folder `out`; raises InputError naming file and line or item.

    A user's items are ordered by (time, line). Items without title and description, or without an image, stay.
    """
    embeds = source.text and source.text_features is None
    reviews_path = _needed(source, source.reviews, (REVIEWS, ALL_REVIEWS))
    if embeds:
        _needed(source, source.meta, (META,), "; or leave the text out with --no-text")
    meta_path = _found(source, source.meta, (META,))
    image_path = None
    if source.image:
        image_path = _needed(source, source.images, (IMAGES,), "; or leave images out with --no-image")
    encoder = load_encoder(source.model, source.device) if embeds else None
    notes: list[str] = []
    features: dict[str, Features] = {}
    with progress_bar() as progress:
        data = _interactions(reviews_path, source.core, progress, notes)
        if meta_path is None:
            titles = texts = np.full(len(data.item_ids), "", dtype=object)
            notes.append("no meta file, so no titles")
        else:
            titles, texts = read_meta(meta_path, data.item_ids, progress)
        if image_path is not None and image_path.suffix == ".b":
            features["image"] = read_images(image_path, data.item_ids, progress)
        elif image_path is not None:
            features["image"] = _from_file(image_path, data.item_ids, notes)
        if source.text and source.text_features is not None:
            features["text"] = _from_file(source.text_features, data.item_ids, notes)
        elif encoder is not None:  # last, since it takes longest: by now every file has been read to its end
            features["text"] = _embedded(texts, encoder, source.batch_size, progress)
        dataset = save_dataset(
            out,
            name=name,
            source="amazon",
            user_ids=data.user_ids,
            item_ids=data.item_ids,
            titles=titles,
            offsets=data.offsets,
            items=data.items,
            features=features,
        )
    for modality, found in features.items():
        absent = int((~found.present).sum())
        if absent:
            notes.append(f"{absent:,} of {dataset.num_items:,} items have no {modality}")
    return Prepared(dataset=dataset, notes=tuple(notes))


def _interactions(path: Path, core: int, progress: Progress, notes: list[str]) -> Interactions:
    users, items, times = read_reviews(path, progress)
    data = index_interactions(users, items, times, core)
    if len(data.items) == 0:
        raise InputError(f"nothing is left of {path} by {core}-core filtering", "lower --core")
    if len(data.items) < len(users):
        notes.append(f"{core}-core: kept {len(data.items):,} of {len(users):,} reviews")
    return data


def _embedded(texts: np.ndarray, encoder: "SentenceTransformer", batch_size: int, progress: Progress) -> Features:
    """Vectors of the texts, absent where empty."""
    present = texts != ""
    task = progress.add_task("texts", total=int(present.sum()))
    vectors = embed(texts[present].tolist(), encoder, batch_size, lambda done: progress.advance(task, done))
    values = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    values[present] = vectors
    return Features(values=values, present=present)


def _from_file(path: Path, item_ids: np.ndarray, notes: list[str]) -> Features:
    features, unused = align(read_features(path, "item_id", listed=None), item_ids)
    if unused:
        notes.append(f"{path}: {unused:,} items are not in the data set and were ignored")
    return features


def _found(source: AmazonSource, given: Path | None, patterns: Sequence[str]) -> Path | None:
    """The file that was given, or the first of the category's official ones that is in the folder."""
    if given is not None:
        if not given.is_file():
            raise InputError(f"{given} does not exist", "check the path")
        return given
    paths = [source.folder / pattern.format(source.category) for pattern in patterns]
    return next((path for path in paths if source.category is not None and path.is_file()), None)


def _needed(source: AmazonSource, given: Path | None, patterns: Sequence[str], otherwise: str = "") -> Path:
    path = _found(source, given, patterns)
    if path is not None:
        return path
    if source.category is None:
        raise InputError(f"no {patterns[0].format('<Category>')} given", f"name the --category{otherwise}")
    missing = source.folder / patterns[0].format(source.category)
    raise InputError(f"{missing} does not exist", f"fetch it with `bbqrec download {source.category}`{otherwise}")
