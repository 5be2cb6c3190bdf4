"""The embedded data set: planted truth on which the claims about behaviour-bound codes can be tested in minutes.

An item has four behaviour factors: `shared` shows in text and image, `text` and `image` show in one of them only, and
`hidden` shows in neither, so that only co-occurrence tells it. Their combination is the item's interest. A user follows
two threads in turn; from item to item a thread keeps a factor or moves it on along a fixed cycle, so the next item's
interest follows from the history. A modality's vector is the sum of its factors' vectors and of a stronger
style that has nothing to do with behaviour. Look-alikes have the vectors of another item and unrelated behaviour.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from bbqrec.config import to_json
from bbqrec.datasets.canonical import Prepared, save_dataset
from bbqrec.datasets.synthetic_config import SyntheticConfig
from bbqrec.schema import Features

FACTORS = ("shared", "text", "image", "hidden")
VISIBLE = {"text": (0, 1), "image": (0, 2)}
"""The columns of `factors` that a modality shows."""
VERSION = 1
"""Raised by one whenever equal configs give other data than before: the embedded data set is then generated anew."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is planted, a row per item: a test may know it, a model may not."""

    factors: Int[np.ndarray, "I 4"]
    interests: Int[np.ndarray, "I"]
    styles: Int[np.ndarray, "I 2"]
    """Style cluster in text and image."""
    original: Int[np.ndarray, "I"]
    """The item whose vectors a look-alike has; -1 for all others."""
    popularity: Float[np.ndarray, "I"]
    transitions: tuple[Float[np.ndarray, "_ _"], ...]
    """Per factor: the probability of each next value (column) within a thread, given the value (row)."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A generated data set before it is written."""

    offsets: Int[np.ndarray, "U1"]
    items: Int[np.ndarray, "n"]
    features: dict[str, Features]
    truth: Truth


def synthesize(config: SyntheticConfig) -> Synthetic:
    """Generate the data set; equal configs give equal bytes. Every part draws from a stream of its own."""
    planted, looks, walks = (np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(3))
    truth = _plant(config, planted)
    offsets, items = _walk(config, truth, walks)
    return Synthetic(offsets=offsets, items=items, features=_look(config, truth, looks), truth=truth)


def prepare_synthetic(config: SyntheticConfig, out: Path, name: str) -> Prepared:
    """Write the data set folder `out`, with the planted truth beside it in `truth.parquet`."""
    made = synthesize(config)
    truth = made.truth
    table = pd.DataFrame(truth.factors, columns=[f"factor_{f}" for f in FACTORS]).assign(
        interest=truth.interests, style_text=truth.styles[:, 0], style_image=truth.styles[:, 1], original=truth.original
    )
    labels = ["-".join(map(str, row)) for row in truth.factors]
    styles = [f"{text}/{image}" for text, image in truth.styles]
    titles = [f"interest {label}, style {style}" for label, style in zip(labels, styles, strict=True)]
    dataset = save_dataset(
        out,
        name=name,
        source="synthetic",
        generator=_generator(config),
        user_ids=_ids("U", config.users),
        item_ids=_ids("I", config.items),
        titles=np.array(titles, dtype=object),
        offsets=made.offsets,
        items=made.items,
        features=made.features,
        tables={"truth": table},
    )
    return Prepared(dataset=dataset, notes=("planted truth: truth.parquet",))


def is_generated(folder: Path, config: SyntheticConfig) -> bool:
    """Whether this generator wrote the data set folder with these options, as its header says."""
    try:
        header = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and header.get("generator") == _generator(config)


def _generator(config: SyntheticConfig) -> dict[str, Any]:
    """The maker of a data set, as JSON types."""
    return {"version": VERSION, "config": to_json(config)}


def _ids(letter: str, count: int) -> np.ndarray:
    width = len(str(count - 1))
    return np.array([f"{letter}{i:0{width}d}" for i in range(count)], dtype=object)


def _plant(config: SyntheticConfig, random: np.random.Generator) -> Truth:
    interests = random.permutation(np.arange(config.items) % config.interests)
    ranks = random.permutation(config.items) + 1
    original = np.full(config.items, -1)
    pairs = random.permutation(config.items)[: 2 * int(config.lookalikes * config.items / 2)].reshape(2, -1)
    original[pairs[0]] = pairs[1]
    return Truth(
        factors=np.stack(np.unravel_index(interests, config.values), axis=1),
        interests=interests,
        styles=random.integers(config.styles, size=(config.items, 2)),
        original=original,
        popularity=ranks ** -float(config.zipf),
        transitions=tuple(
            _transitions(count, move, config.follow, random)
            for count, move in zip(config.values, config.moves, strict=True)
        ),
    )


def _transitions(count: int, move: float, follow: float, random: np.random.Generator) -> Float[np.ndarray, "n n"]:
    order = random.permutation(count)
    matrix = np.full((count, count), (1 - follow) / count)
    matrix[order, order] += follow * (1 - move)
    matrix[order, np.roll(order, -1)] += follow * move
    return matrix


def _look(config: SyntheticConfig, truth: Truth, random: np.random.Generator) -> dict[str, Features]:
    """Vectors by gathering and adding only, rounded to half precision: the same on every machine, whatever its BLAS."""
    features = {}
    for place, (modality, width, absent) in enumerate(
        [("text", config.text_width, config.without_text), ("image", config.image_width, config.without_image)]
    ):

        def directions(count: int, strength: float, width: int = width) -> Float[np.ndarray, "count F"]:
            return random.normal(size=(count, width)) * (strength / np.sqrt(width))

        values = directions(config.items, config.noise_strength)
        for column in VISIBLE[modality]:
            values += directions(config.values[column], config.behaviour_strength)[truth.factors[:, column]]
        values += directions(config.styles, config.style_strength)[truth.styles[:, place]]
        for direction in directions(4, config.detail_strength / 2):
            values += random.normal(size=(config.items, 1)) * direction
        copies = np.flatnonzero(truth.original >= 0)
        values[copies] = values[truth.original[copies]] + directions(len(copies), config.noise_strength / 10)
        present = _present(config.items, absent, random)
        values = np.where(present[:, None], values.astype(np.float16), 0).astype(np.float32)
        features[modality] = Features(values=values, present=present)
    return features


def _present(items: int, absent: float, random: np.random.Generator) -> Bool[np.ndarray, "I"]:
    present = np.ones(items, dtype=bool)
    present[random.permutation(items)[: round(absent * items)]] = False
    return present


def _walk(
    config: SyntheticConfig, truth: Truth, random: np.random.Generator
) -> tuple[Int[np.ndarray, "U1"], Int[np.ndarray, "n"]]:
    """All users at once, step by step; no item twice in a user."""
    users, values = config.users, np.array(config.values)
    lengths = config.min_length - 1 + random.geometric(1 / (config.mean_length - config.min_length + 1), users)
    lengths = np.minimum(lengths, config.max_length)
    members = _members(truth.interests, config.interests)
    threads = random.integers(values, size=(2, users, 4))
    active = random.integers(2, size=users)
    everyone = np.arange(users)
    history = np.full((users, config.max_length), -1)
    for step in range(lengths.max()):
        active = np.where(random.random(users) < config.stay, active, 1 - active)
        before, moved = threads[active, everyone], np.empty((users, 4), dtype=np.int64)
        for factor, matrix in enumerate(truth.transitions):
            below = random.random((users, 1)) < matrix.cumsum(axis=1)[before[:, factor]]
            moved[:, factor] = np.where(below.any(axis=1), below.argmax(axis=1), len(matrix) - 1)
        threads[active, everyone] = moved
        candidates = members[np.ravel_multi_index(moved.T, config.values)]
        used = (candidates[:, :, None] == history[:, None, :step]).any(axis=2) | (candidates < 0)
        keys = np.log(truth.popularity[candidates]) + random.gumbel(size=candidates.shape)
        chosen = candidates[everyone, np.where(used, -np.inf, keys).argmax(axis=1)]
        for user in np.flatnonzero(used.all(axis=1)):  # the interest is used up: any new item
            chosen[user] = random.choice(np.setdiff1d(np.arange(config.items), history[user, :step]))
        history[:, step] = chosen
    kept = np.arange(config.max_length) < lengths[:, None]
    return np.concatenate([[0], np.cumsum(lengths)]), history[kept].astype(np.int32)


def _members(interests: Int[np.ndarray, "I"], count: int) -> Int[np.ndarray, "C S"]:
    """The items of each interest, -1 on the right."""
    sizes = np.bincount(interests, minlength=count)
    members = np.full((count, sizes.max()), -1)
    members[np.arange(sizes.max()) < sizes[:, None]] = np.argsort(interests, kind="stable")
    return members
