"""Frozen configurations of both stages. A run is a pair of them on a data set: `run.py`."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bbqrec.schema import COMPONENTS

ADDED = {"added": True}
"""Metadata of a field that is younger than runs in stores: keys leave it out where it has its default."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every config says of itself: which model it is of, and which version of that model's code."""

    kind: ClassVar[str]
    """The stage, and behind a slash the model if it is not BBQRec's."""
    version: ClassVar[int]
    """Raised by one whenever a change to the code changes its results, so that old artefacts are not reused."""


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig(StageConfig):
    """Stage 1 (Sec. 4.1). Defaults are the paper's (Sec. 5.1, 5.4) or, where it is silent, documented decisions."""

    kind: ClassVar[str] = "quantizer"
    version: ClassVar[int] = 2
    components: tuple[str, ...] = COMPONENTS
    levels: int = 3
    codes: int = 256
    width: int = 128
    hidden: int = 512
    shared: bool = True
    """One codebook per level for all components (Sec. 4.1.2); False gives each component its own (w/o U)."""
    disentangle: bool = True
    """Specific encoders and L_MIM (Eq. 2-3); False removes both (w/o MIM)."""
    contrastive: bool = True
    """The sequence-to-item task L_Rec (Eq. 12)."""
    alpha: float = 0.25
    beta: float = 1.0
    gamma: float = 1.0
    tau: float = 0.1
    id_std: float = 0.002
    """Standard deviation of the initial ID embeddings. Latents are normalised over their width, which makes a random
    start as loud as what is learned: the smaller it is, the sooner behaviour decides where an ID lies."""
    reduction: Literal["mean", "sum"] = "mean"
    gamma_warmup_epochs: int = 2
    club_steps: int = 5
    club_hidden: int = 256
    club_learning_rate: float = 1e-3
    sequence_layers: int = 2
    sequence_heads: int = 4
    dropout: float = 0.1
    max_history: int = 20
    unquantized_share: float = 0.5
    """Share of the epochs, rounded down, that train the latents before there are codes (q = z, no L_RQ); k-means then
    starts the codebook from latents that behaviour has shaped. At 0 it starts from random IDs."""
    kmeans_iterations: int = 10
    restart_dead_codes: bool = True
    epochs: int = 40
    batch_users: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        unknown = [c for c in self.components if c not in COMPONENTS]
        if unknown or not self.components or len(set(self.components)) != len(self.components):
            raise ValueError(f"components={self.components} must be distinct names out of {COMPONENTS}")
        at_least(self, 1, "levels", "codes", "width", "hidden", "epochs", "batch_users", "max_history", "club_hidden")
        at_least(self, 1, "sequence_layers", "sequence_heads", "kmeans_iterations")
        at_least(self, 0, "alpha", "beta", "gamma", "gamma_warmup_epochs", "club_steps", "id_std", "weight_decay")
        above_zero(self, "tau", "learning_rate", "club_learning_rate")
        share(self, "dropout", "unquantized_share")
        if not self.contrastive and not self.modalities:
            raise ValueError(f"contrastive=False with components={self.components} leaves nothing to learn from")
        if self.contrastive and self.vector_width % self.sequence_heads:
            raise ValueError(f"sequence_heads={self.sequence_heads} must divide the width of v, {self.vector_width}")

    @property
    def vector_width(self) -> int:
        """Width of v_i (Eq. 10)."""
        return self.width * len(self.components)

    @property
    def unquantized_epochs(self) -> int:
        """Epochs before the codebook starts."""
        return int(self.epochs * self.unquantized_share)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Components that have raw features."""
        return tuple(c for c in self.components if c != "id")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(StageConfig):
    """What the training loop of stage 2 needs to know of any model; a model's own config adds its sizes."""

    dropout: float = 0.1
    max_history: int = 20
    epochs: int = 200
    patience: int = 10
    """Epochs without a better validation NDCG@10 after which training stops."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: down to zero at the last epoch, or constant."""
    weight_decay: float = 0.01
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products in training; decoding is always float32. `auto`: bfloat16 where the hardware has it."""
    validation_users: int = 0
    """Users drawn (by the run's seed) for the per-epoch validation; 0 takes all of them."""

    joint_losses: ClassVar[tuple[str, ...]] = ()
    """Values of the field `loss`, where a model has one, with which an example's loss depends on its batch's others."""

    @property
    def shareable(self) -> bool:
        """Whether workers can share a batch out: the batch's loss is the mean of its shares' losses."""
        return getattr(self, "loss", None) not in self.joint_losses

    def __post_init__(self) -> None:
        at_least(self, 1, "max_history", "epochs", "patience", "batch_size")
        at_least(self, 0, "warmup_steps", "weight_decay", "validation_users")
        above_zero(self, "learning_rate")
        share(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class RecommenderConfig(TrainingConfig):
    """Stage 2 (Sec. 4.2). The sizes of the generator are TIGER's and LETTER's; the paper gives none."""

    kind: ClassVar[str] = "recommender"
    version: ClassVar[int] = 6
    layout: Literal["composite", "flat"] = "composite"
    """`composite`: a position holds one code per component, predicted by parallel heads; `flat`: a code a position."""
    disambiguate: bool = False
    """Append one level that numbers the items of a collision (TIGER)."""
    similarity: bool = True
    """Similarity-enhanced self-attention in the encoder (Eq. 14-17); False is variant S."""
    inherit_codebook: bool = False
    """Start the code embeddings from the codebook vectors (variant E)."""
    history: Literal["prefix", "packed"] = "prefix"
    """`prefix`: each training prefix is an example of its own, encoded bidirectionally. `packed`: a user's history is
    encoded once with an item-causal encoder and every position is a target of the same pass; as its states cannot know
    how far back they will lie, cross-attention gets a relative position bias over items, and heads start out
    preferring recent items to different degrees."""
    objective: Literal["codes", "children"] = "codes"
    """`codes`: mean cross-entropy over (level, component); the score of a child is the sum of its codes'
    log-probabilities. `children`: at every level the softmax runs over the children that exist, so scores are
    log-probabilities of the catalogue's IDs and nothing is spent on codes that the prefix already decides. The score of
    a child is the sum of its codes' logits and, with a learned weight per level that starts at 1, its log-popularity:
    log(1 + training interactions of the items below it)."""
    node_vectors: Literal["codes", "ids"] = dataclasses.field(default="codes", metadata=ADDED)
    """What a child's score reads (objective `children`). `codes`: the head vectors of its own codes. `ids`: besides,
    the mean of those of the codes below it, so that the first level can tell IDs apart by all their codes: see
    `node_vectors.py`."""
    decoder_start: Literal["learned", "last", "every"] = dataclasses.field(default="learned", metadata=ADDED)
    """What the decoder reads first. `learned`: one vector for all histories (T5). `last`: besides, the encoder's state
    of the history's last item (the mean over its positions), without dropout; the decoder's blocks then start as the
    identity, and what they add is learned. `every`: the same sum is also added to what every later level reads."""
    buckets: int = 100
    similarity_init: Literal["ones", "uniform"] = "ones"
    fusion: Literal["concat", "sum"] = "concat"
    embedding_std: float = dataclasses.field(default=0.05, metadata=ADDED)
    """Standard deviation of the code embeddings before training."""
    d_model: int = 128
    heads: int = 6
    head_width: int = 64
    d_ff: int = 1024
    encoder_layers: int = 4
    decoder_layers: int = 4
    attention_scale: Literal["t5", "sqrt"] = "t5"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    label_smoothing: float = 0.0
    beam: int = 50
    validation_beam: int = 20
    """Beam of the per-epoch validation; the selected checkpoint is judged with `beam`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "buckets", "d_model", "heads", "head_width", "d_ff", "encoder_layers", "decoder_layers")
        at_least(self, 1, "beam", "validation_beam")
        at_least(self, 4, "relative_buckets")
        above_zero(self, "embedding_std")
        share(self, "label_smoothing")
        if self.objective == "children" and self.label_smoothing:
            raise ValueError(f"label_smoothing={self.label_smoothing} needs objective codes")
        if self.objective == "codes" and self.node_vectors == "ids":
            raise ValueError(
                "node_vectors=ids needs objective children: with objective=codes set node_vectors=codes, too"
            )
        if self.relative_max_distance <= self.relative_buckets:
            raise ValueError(f"relative_max_distance={self.relative_max_distance} must exceed {self.relative_buckets}")

    @property
    def temperature(self) -> float:
        """Divides the logits in training; a method that has another makes it a field."""
        return 1.0


def at_least(config: Any, least: int, *names: str) -> None:
    """Raises ValueError for a field below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name}={getattr(config, name)} must be at least {least}")


def above_zero(config: Any, *names: str) -> None:
    """Raises ValueError for a field of zero or less."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name}={getattr(config, name)} must be above 0")


def share(config: Any, *names: str) -> None:
    """Raises ValueError for a field outside [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ValueError(f"{name}={getattr(config, name)} must be in [0, 1)")


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def identity(config: Any) -> dict[str, Any]:
    """What a key is made of: the config as JSON types, without `ADDED` fields that have their default."""
    silent = {
        f.name for f in dataclasses.fields(config) if f.metadata == ADDED and getattr(config, f.name) == f.default
    }
    return {name: value for name, value in to_json(config).items() if name not in silent}


def to_json(config: Any) -> dict[str, Any]:
    """The config as plain JSON types (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
