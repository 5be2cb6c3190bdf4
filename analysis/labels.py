"""How methods, metrics and data sets are called in tables and figures."""

from dataclasses import dataclass

FULL = "bbqrec"
"""The full model, which every ablation is compared with."""
COMPONENTS = ("id", "text", "image")
"""The behaviour signals of the full model."""


@dataclass(frozen=True)
class Label:
    """`latex` is the paper's name, which matplotlib reads, too; `plain` is that of `bbqrec methods`."""

    latex: str
    plain: str


METHOD_LABELS = {
    "bbqrec": Label("BBQRec", "BBQRec"),
    "bbqrec/no-mim": Label(r"BBQRec$_{\neg\mathrm{MIM}}$", "w/o MIM"),
    "bbqrec/no-rec": Label(r"BBQRec$_{\neg\mathrm{Rec}}$", "w/o Rec"),
    "bbqrec/no-u": Label(r"BBQRec$_{\neg\mathrm{U}}$", "w/o U"),
    "bbqrec/s": Label(r"BBQRec$_{\mathrm{S}}$", "S"),
    "bbqrec/e": Label(r"BBQRec$_{\mathrm{E}}$", "E"),
    "bbqrec/no-id": Label(r"BBQRec$_{\neg\mathrm{ID}}$", "w/o ID"),
    "bbqrec/no-text": Label(r"BBQRec$_{\neg\mathrm{text}}$", "w/o text"),
    "bbqrec/no-image": Label(r"BBQRec$_{\neg\mathrm{image}}$", "w/o image"),
    "gru4rec": Label("GRU4Rec", "GRU4Rec"),
    "bert4rec": Label("BERT4Rec", "BERT4Rec"),
    "sasrec": Label("SASRec", "SASRec"),
    "gru4rec-f": Label(r"GRU4Rec$_{\mathrm{F}}$", "GRU4Rec_F"),
    "sasrec-f": Label(r"SASRec$_{\mathrm{F}}$", "SASRec_F"),
    "nova-bert": Label("NOVA-BERT", "NOVA-BERT"),
    "missrec": Label("MISSRec", "MISSRec"),
    "vq-rec": Label("VQ-Rec", "VQ-Rec"),
    "tiger": Label("TIGER", "TIGER"),
    "letter": Label("LETTER", "LETTER"),
}

METRIC_LABELS = {"recall@5": "R@5", "recall@10": "R@10", "ndcg@5": "N@5", "ndcg@10": "N@10"}

PAPER_DATASETS = ("beauty", "sports", "clothing", "toys")
"""In the paper's order; others follow in the study's."""


def dataset_label(name: str) -> str:
    """The paper writes Toys for toys."""
    return name.capitalize() if name.isalpha() and name.islower() else name


def in_paper_order(datasets: list[str]) -> list[str]:
    """Distinct names, those of the paper first."""
    known = [name for paper in PAPER_DATASETS for name in datasets if name.lower() == paper]
    return list(dict.fromkeys([*known, *datasets]))
