"""The model's sensitivity to its sizes: length L, codebook size N and width D of semantic IDs, similarity buckets K.

    python sweeps/hyperparameters.py                                 embedded synthetic data set, profile tiny
    python sweeps/hyperparameters.py --dataset data/beauty --profile paper --seeds 3 --store s3://bucket/runs --cluster
    python sweeps/hyperparameters.py --grid recommender.dropout=0.1,0.2,0.3 recommender.heads=2,4 --crossed

Feeds Figure 3. Cost: without options 13 recommenders and 10 quantizers per data set and seed; on the embedded data set
at most 30 minutes on 2 CPU cores. The base is one run for all four grids, and the full model's run of the ablation
study: with the same --store, profile and seeds it is computed once. Values of K share one quantizer. The same command
again computes only what is missing, also after a fault.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the packages lie beside this folder, which is none to import from
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bbqrec.errors import InputError, require_known
from sweeps.command import StudyCommand, main
from sweeps.grids import GRIDS, crossed, one_at_a_time, parse_grid


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(StudyCommand):
    """Grids of any config fields around the base: Figure 3. The same command again computes only what is missing.

    Example: python sweeps/hyperparameters.py --dataset data/beauty --grid quantizer.levels=1,2,3,4
    """

    variants: tuple[str, ...] = ("bbqrec",)
    """Methods to vary, out of `bbqrec methods`."""
    grid: tuple[str, ...] = ()
    """Fields and their values, for instance quantizer.levels=1,2,3,4. Default: L, N, D and K as in Figure 3."""
    crossed: bool = False
    """All combinations of the fields' values, instead of one field at a time around the base."""
    out: Path = Path("out/hyperparameters")
    """Folder of the figure and the table."""

    name = "hyperparameters"
    prints = ("overview",)

    def options(self) -> dict[str, Any]:
        require_known("profile", self.size, GRIDS)
        grid = parse_grid(self.grid) if self.grid else GRIDS[self.size]
        if self.crossed and not self.grid:
            raise InputError(
                "--crossed has no fields to cross", "name them: --grid quantizer.levels=2,3 quantizer.codes=64,256"
            )
        return {"settings": crossed(grid) if self.crossed else one_at_a_time(grid)}


if __name__ == "__main__":
    sys.exit(main(Hyperparameters))
