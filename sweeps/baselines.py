"""The comparison of methods: BBQRec and the baselines of Table 2.

    python sweeps/baselines.py                                       embedded synthetic data set, profile tiny
    python sweeps/baselines.py --dataset data/beauty data/toys --seeds 3 --store s3://bucket/runs --cluster

Feeds Table 2, with a paired test per user, and the same beside the paper's numbers. Cost: a recommender per method,
data set and seed, and a quantizer for those that generate codes; on the embedded data set at most 15 minutes on 2 CPU
cores. BBQRec's own runs are those of the ablation study: with the same --store, profile and seeds they are computed
once. The same command again computes only what is missing, also after a fault.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.baselines import TABLE_2
from bbqrec.methods import METHODS
from sweeps.command import StudyCommand, main

VARIANTS = tuple(method for method in TABLE_2.methods if method in METHODS and "Table 2" in METHODS[method].table)
"""In the order of the table's columns."""


@dataclass(frozen=True, kw_only=True)
class Baselines(StudyCommand):
    """The comparison of methods: Table 2. The same command again computes only what is missing.

    Example: python sweeps/baselines.py --dataset data/toys --variants sasrec tiger bbqrec --seeds 3
    """

    variants: tuple[str, ...] = VARIANTS
    """Methods to compare, out of `bbqrec methods`."""
    out: Path = Path("out/baselines")
    """Folder of the tables."""

    name = "baselines"
    prints = ("table2",)
    shows = ("Table 2",)


if __name__ == "__main__":
    sys.exit(main(Baselines))
