"""Items that share a semantic ID, by the number of levels: TIGER's residual quantizer, LETTER's, BBQRec's.

    python sweeps/collisions.py                                      embedded synthetic data set, profile tiny
    python sweeps/collisions.py --dataset data/toys data/clothing --profile paper --store s3://bucket/runs --cluster

Feeds Table 5. Cost: stage 1 alone, a quantizer per method, data set, seed and number of levels (and the SASRec that
LETTER learns from); on the embedded data set a few minutes on 2 CPU cores. Quantizers of the usual number of levels are
those of the other studies: with the same --store, profile and seeds they are computed once.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.collisions import LEVELS, QUANTIZERS
from bbqrec.methods import METHODS
from sweeps.command import StudyCommand, main

VARIANTS = tuple(method for method in QUANTIZERS if method in METHODS)


@dataclass(frozen=True, kw_only=True)
class Collisions(StudyCommand):
    """Collisions of semantic IDs by the number of levels: Table 5. No recommender is trained for it.

    Example: python sweeps/collisions.py --dataset data/toys --variants tiger bbqrec --levels 2 3
    """

    variants: tuple[str, ...] = VARIANTS
    """Methods with a quantizer, out of `bbqrec methods`."""
    levels: tuple[int, ...] = (2, 3, 4)
    """Numbers of levels to compare."""
    out: Path = Path("out/collisions")
    """Folder of the table."""

    name = "collisions"
    prints = ("table5",)

    def options(self) -> dict[str, Any]:
        return {"stage": "quantizer", "settings": tuple({LEVELS: levels} for levels in dict.fromkeys(self.levels))}


if __name__ == "__main__":
    sys.exit(main(Collisions))
