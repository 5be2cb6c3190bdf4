"""The ablation study: the full model and its eight variants.

    python sweeps/ablations.py                                       embedded synthetic data set, profile tiny
    python sweeps/ablations.py --dataset data/toys data/beauty --seeds 3 --store s3://bucket/runs --cluster

Feeds Tables 3 and 4 and Figure 4. Cost: nine methods are seven quantizers and nine recommenders, since S and E share
the full model's quantizer; on the embedded data set at most 15 minutes on 2 CPU cores. The same command again computes
only what is missing, also after a fault.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bbqrec.methods import METHODS
from sweeps.command import StudyCommand, main

VARIANTS = tuple(method for method in METHODS if method == "bbqrec" or method.startswith("bbqrec/"))


@dataclass(frozen=True, kw_only=True)
class Ablations(StudyCommand):
    """The ablation study: Tables 3 and 4 and Figure 4. The same command again computes only what is missing.

    Example: python sweeps/ablations.py --dataset data/toys --variants bbqrec bbqrec/no-mim --set recommender.epochs=2
    """

    variants: tuple[str, ...] = VARIANTS
    """Methods to compare, out of `bbqrec methods`."""
    out: Path = Path("out")
    """Folder of the tables and figures."""

    name = "ablations"
    prints = ("table3", "table4")
    shows = ("Table 3", "Table 4", "Figure 4")


if __name__ == "__main__":
    sys.exit(main(Ablations))
