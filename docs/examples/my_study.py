"""Does the full model need more heads, or a longer history? Against SASRec, on any data set.

python my_study.py --dataset data/shop --seeds 2 --store runs
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from bbqrec.methods import METHODS, variant
from sweeps.command import StudyCommand, main

METHODS["bbqrec/heads"] = variant("bbqrec", "8 heads", {"recommender.heads": 8})
METHODS["bbqrec/long"] = variant("bbqrec", "history of 40", {"recommender.max_history": 40})


@dataclass(frozen=True, kw_only=True)
class MyStudy(StudyCommand):
    """Heads and history of the full model. The same command again computes only what is missing."""

    variants: tuple[str, ...] = ("sasrec", "bbqrec", "bbqrec/heads", "bbqrec/long")
    """Methods to compare, out of `bbqrec methods` and those above."""
    out: Path = Path("out/my-study")
    """Folder of the table."""

    name = "my-study"
    prints = ("overview",)


if __name__ == "__main__":
    sys.exit(main(MyStudy))
