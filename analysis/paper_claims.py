"""What Sections 5.2 to 5.6 of the paper claim, as comparisons that can be made: data, no code that judges.

A claim is a sentence and the comparisons that it stands on. "better" compares NDCG@10 on the test split, the metric by
which checkpoints are selected, of two methods (or two settings of one) in the same study.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.collisions import QUANTIZERS
from analysis.contrasts import Side
from analysis.labels import FULL


@dataclass(frozen=True)
class Better:
    """`ours` scores higher than `theirs`."""

    ours: Side
    theirs: Side


@dataclass(frozen=True)
class Fewer:
    """`ours` has fewer collisions than `theirs` with this many levels."""

    ours: str
    theirs: str
    levels: int


@dataclass(frozen=True)
class Within:
    """BBQRec takes at most `ratio` times TIGER's time for one user at this beam."""

    beam: int
    ratio: float


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of the paper, shortened."""

    section: str
    sentence: str
    checks: tuple[Better | Fewer | Within, ...]


def _over(ours: str, theirs: Sequence[str]) -> tuple[Better, ...]:
    return tuple(Better(Side(ours), Side(other)) for other in theirs)


def _peak(field: str, best: int, others: Sequence[int]) -> tuple[Better, ...]:
    """One value of a field scores higher than each of the others."""
    return tuple(Better(Side(FULL, f"{field}={best}"), Side(FULL, f"{field}={other}")) for other in others)


BASELINES = (
    *("gru4rec", "bert4rec", "sasrec", "gru4rec-f", "sasrec-f", "nova-bert", "missrec", "vq-rec", "tiger", "letter"),
)

CLAIMS = (
    PaperClaim(
        "5.2",
        "GRU4Rec is the worst of the traditional methods; SASRec and BERT4Rec improve on it.",
        (*_over("sasrec", ["gru4rec"]), *_over("bert4rec", ["gru4rec"])),
    ),
    PaperClaim(
        "5.2",
        "With the modality information GRU4Rec_F and SASRec_F perform better than GRU4Rec and SASRec.",
        (*_over("gru4rec-f", ["gru4rec"]), *_over("sasrec-f", ["sasrec"])),
    ),
    PaperClaim(
        "5.2",
        "NOVA-BERT and MISSRec perform better than GRU4Rec_F and SASRec_F.",
        (*_over("nova-bert", ["gru4rec-f", "sasrec-f"]), *_over("missrec", ["gru4rec-f", "sasrec-f"])),
    ),
    PaperClaim(
        "5.2",
        "VQ-Rec is the poorest of the vector-quantized methods.",
        tuple(Better(Side(method), Side("vq-rec")) for method in ("tiger", "letter", FULL)),
    ),
    PaperClaim("5.2", "LETTER improves on TIGER.", _over("letter", ["tiger"])),
    PaperClaim("5.2", "BBQRec achieves the best performance among all methods.", _over(FULL, BASELINES)),
    PaperClaim("5.3.1", "Eliminating the MIM loss results in a decline.", _over(FULL, ["bbqrec/no-mim"])),
    PaperClaim("5.3.1", "Removing the recommendation loss leads to a marked decrease.", _over(FULL, ["bbqrec/no-rec"])),
    PaperClaim("5.3.1", "Eliminating the shared codebook results in a significant drop.", _over(FULL, ["bbqrec/no-u"])),
    PaperClaim("5.3.2", "Removing the similarity module causes significant drops.", _over(FULL, ["bbqrec/s"])),
    PaperClaim("5.3.2", "Inheriting the code embeddings introduces a marginal degradation.", _over(FULL, ["bbqrec/e"])),
    PaperClaim(
        "5.4",
        "Performance rises with the length L from 1 to 3 and falls at 4.",
        _peak("quantizer.levels", 3, [1, 2, 4]),
    ),
    PaperClaim(
        "5.4",
        "It rises with the codebook size N from 64 to 256 and falls at 512.",
        _peak("quantizer.codes", 256, [64, 512]),
    ),
    PaperClaim(
        "5.4", "It rises with the width D up to 128 and drops beyond.", _peak("quantizer.width", 128, [32, 64, 256])
    ),
    PaperClaim(
        "5.4",
        "It rises with the buckets K from 10 to 100 and falls at 200.",
        _peak("recommender.buckets", 100, [10, 200]),
    ),
    PaperClaim(
        "5.5",
        "All of ID, text and image are indispensable.",
        _over(FULL, ["bbqrec/no-id", "bbqrec/no-text", "bbqrec/no-image"]),
    ),
    PaperClaim(
        "5.5",
        "Removing the behavioural signal (ID) degrades most.",
        tuple(Better(Side(method), Side("bbqrec/no-id")) for method in ("bbqrec/no-text", "bbqrec/no-image")),
    ),
    PaperClaim(
        "5.5", "Removing text costs more than removing the image.", _over("bbqrec/no-image", ["bbqrec/no-text"])
    ),
    PaperClaim(
        "5.6.1",
        "LETTER has fewer collisions than TIGER's RQ-VAE with 3 or more levels.",
        tuple(Fewer("letter", "tiger", levels) for levels in (3, 4)),
    ),
    PaperClaim(
        "5.6.1",
        "BBQRec has fewer collisions than both without longer IDs.",
        tuple(Fewer(FULL, other, levels) for other in QUANTIZERS if other != FULL for levels in (2, 3, 4)),
    ),
    PaperClaim(
        "5.6.2",
        "Three codes a position cost no significant increase in inference time (the paper: 1.9 x TIGER's at beam 50, "
        "1.6 x at 100).",
        (Within(50, 1.9), Within(100, 1.6)),
    ),
)
