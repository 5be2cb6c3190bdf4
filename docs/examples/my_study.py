"""Does the full model need more heads, or wider layers? Against SASRec, on any data set.

python my_study.py --dataset data/shop --seeds 2 --store runs
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from bbqrec.methods import METHODS, variant
from sweeps.command import StudyCommand, main

METHODS["bbqrec/heads"] = variant("bbqrec", "8 heads", {"recommender.heads": 8})
METHODS["bbqrec/wide"] = variant("bbqrec", "wider layers", {"recommender.d_ff": 512})


@dataclass(frozen=True, kw_only=True)
class MyStudy(StudyCommand):
    """Heads and widths of the full model. The same command again computes only what is missing."""

    variants: tuple[str, ...] = ("sasrec", "bbqrec", "bbqrec/heads", "bbqrec/wide")
    """Methods to compare, out of `bbqrec methods` and those above."""
    out: Path = Path("out/my-study")
    """Folder of the table."""

    name = "my-study"
    prints = ("overview",)


if __name__ == "__main__":
    sys.exit(main(MyStudy))
