"""The options of the embedded data set (see `synthetic`), and which of them go together."""

from dataclasses import dataclass

import numpy as np

from bbqrec.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and strengths. A strength is the length of a vector's part; shares are of the items."""

    users: int = 2000
    """Number of users."""
    items: int = 600
    """Number of items."""
    seed: int = 0
    """Equal seeds give equal data."""
    mean_length: float = 9.0
    """Items per user, on average; geometrically distributed from the shortest to the longest."""
    min_length: int = 5
    """Items of the shortest history."""
    max_length: int = 30
    """Items of the longest history."""
    values: tuple[int, int, int, int] = (4, 3, 3, 2)
    """Number of values of the factors shared, text, image and hidden."""
    moves: tuple[float, float, float, float] = (0.0, 0.2, 0.2, 0.0)
    """Probability that a thread moves a factor on to the next value of its cycle; otherwise it keeps the value."""
    follow: float = 0.95
    """Probability that a factor follows this plan; otherwise it takes any value."""
    stay: float = 0.7
    """Probability that the next item belongs to the thread of the last one."""
    zipf: float = 0.8
    """Popularity of the r-th most popular item is r^-zipf (within its interest)."""
    text_width: int = 48
    """Width of a text vector."""
    image_width: int = 64
    """Width of an image vector."""
    styles: int = 16
    """Style clusters per modality."""
    behaviour_strength: float = 1.5
    """Length of the part of each behaviour factor that the modality shows."""
    style_strength: float = 3.0
    """Length of the style's part, which has nothing to do with behaviour."""
    detail_strength: float = 1.0
    """Continuous variation within a style, in four directions per modality."""
    noise_strength: float = 0.5
    """Length of the item's own noise."""
    without_text: float = 0.05
    """Share of the items without text."""
    without_image: float = 0.15
    """Share of the items without image."""
    lookalikes: float = 0.2
    """Share of the items that come in pairs of near-equal vectors and unrelated behaviour."""

    def __post_init__(self) -> None:
        for name in ("users", "items", "styles", "text_width", "image_width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is too small", "give at least 1")
        if self.seed < 0:
            raise InputError(f"seed={self.seed} is negative", "give 0 or more")
        if not 3 <= self.min_length <= self.mean_length <= self.max_length:
            found = f"min_length={self.min_length}, mean_length={self.mean_length}, max_length={self.max_length}"
            raise InputError(f"{found} are not in order", "give 3 <= min <= mean <= max")
        for name in ("behaviour_strength", "style_strength", "detail_strength", "noise_strength"):
            if not 0 <= getattr(self, name) <= 100:
                raise InputError(f"{name}={getattr(self, name)} is not a length", "give a value from 0 to 100")
        if not 0 <= self.zipf <= 10:  # at 10 the rarest of a million items has 1e-60, far beyond it has nothing
            raise InputError(f"zipf={self.zipf} is no exponent of a popularity", "give a value from 0 to 10")
        for name in ("moves", "follow", "stay", "without_text", "without_image", "lookalikes"):
            if not (np.min(getattr(self, name)) >= 0 and np.max(getattr(self, name)) <= 1):  # nor NaN
                raise InputError(f"{name}={getattr(self, name)} is not a share", "give a value from 0 to 1")
        if min(self.values) < 1 or self.interests * 3 > self.items or self.max_length * 2 > self.items:
            found = f"{self.items} items with values={self.values} and max_length={self.max_length}"
            raise InputError(f"{found} do not go together", "give 3 items per interest and 2 per place of a history")

    @property
    def interests(self) -> int:
        """Number of combinations of the factors' values."""
        return int(np.prod(self.values))
