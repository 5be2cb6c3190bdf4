"""A small data set on disk, studies of it, and a store. No Ray is started here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_data import SMALL

from bbqrec.datasets.synthetic import SyntheticConfig, prepare_synthetic
from sweeps.ablations import VARIANTS
from sweeps.study import Study


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A canonical data set named `toy` of 53 users and 97 items with text and image."""
    path = tmp_path_factory.mktemp("data") / "toy"
    prepare_synthetic(SyntheticConfig(users=53, seed=3, **SMALL), path, "toy")
    return path


@pytest.fixture
def study(folder: Path) -> Callable[..., Study]:
    """Makes a study of the nine methods on `folder`, 2 epochs of stage 1 and 3 of stage 2; options replace these."""

    def make(**options: Any) -> Study:
        epochs = {"quantizer.epochs": 2, "recommender.epochs": 3}
        defaults = {"name": "ablations", "methods": VARIANTS, "datasets": (folder,), "profile": "tiny"}
        return Study(**{**defaults, **options, "overrides": {**epochs, **options.get("overrides", {})}})

    return make
