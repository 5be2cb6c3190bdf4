"""The size profiles: what each changes of a method's configuration, per family of methods."""

from collections.abc import Mapping
from typing import Any

Overrides = Mapping[str, Any]

GENERATIVE: Mapping[str, Overrides] = {
    # The sizes that the paper states, or that its baselines use where it states none.
    "paper": {},
    # Trains on two CPU cores: half the codebook width, more codes, one encoder and one decoder layer, packed histories.
    "small": {
        "quantizer.codes": 2048,
        "quantizer.width": 64,
        "quantizer.hidden": 256,
        "quantizer.club_hidden": 64,
        "quantizer.batch_users": 128,
        "quantizer.epochs": 10,
        "recommender.history": "packed",
        "recommender.objective": "children",
        "recommender.node_vectors": "ids",
        "recommender.decoder_start": "every",
        "recommender.fusion": "sum",
        "recommender.embedding_std": 0.007,
        "recommender.dropout": 0.2,
        "recommender.batch_size": 64,
        "recommender.heads": 4,
        "recommender.head_width": 32,
        "recommender.d_ff": 256,
        "recommender.encoder_layers": 1,
        "recommender.decoder_layers": 1,
        "recommender.epochs": 8,
        "recommender.validation_users": 4000,
    },
    # For the embedded data set: a whole study in minutes.
    "tiny": {
        "quantizer.codes": 32,
        "quantizer.width": 32,
        "quantizer.hidden": 64,
        "quantizer.club_hidden": 32,
        "quantizer.sequence_layers": 1,
        "quantizer.batch_users": 32,
        "quantizer.learning_rate": 2e-3,
        "quantizer.epochs": 15,
        "recommender.history": "packed",
        "recommender.objective": "children",
        "recommender.node_vectors": "ids",
        "recommender.decoder_start": "last",
        "recommender.fusion": "sum",
        "recommender.embedding_std": 0.007,
        "recommender.d_model": 64,
        "recommender.heads": 4,
        "recommender.head_width": 16,
        "recommender.d_ff": 128,
        "recommender.encoder_layers": 2,
        "recommender.decoder_layers": 1,
        "recommender.batch_size": 32,
        "recommender.learning_rate": 2e-3,
        "recommender.epochs": 8,
        "recommender.warmup_steps": 50,
    },
}
"""Quantizer and generator: BBQRec, its variants, TIGER."""

_LETTER_QUANTIZER: Mapping[str, Overrides] = {
    "paper": {},
    "small": {
        "quantizer.codes": 2048,
        "quantizer.width": 64,
        "quantizer.hidden": 256,
        "quantizer.epochs": 10,
    },
    "tiny": {
        "quantizer.codes": 32,
        "quantizer.width": 32,
        "quantizer.hidden": 64,
        "quantizer.batch_items": 128,
        "quantizer.learning_rate": 2e-3,
        "quantizer.epochs": 15,
    },
}

LETTER: Mapping[str, Overrides] = {
    name: {
        **_LETTER_QUANTIZER[name],
        **{path: value for path, value in changes.items() if path.startswith("recommender.")},
    }
    for name, changes in GENERATIVE.items()
}
"""A tokenizer of its own, the generator of the others."""

ITEM_MODELS: Mapping[str, Overrides] = {
    "paper": {},
    "small": {
        "recommender.batch_size": 128,
        "recommender.epochs": 25,
        "recommender.validation_users": 4000,
    },
    "tiny": {
        "recommender.d_model": 32,
        "recommender.dropout": 0.2,
        "recommender.batch_size": 32,
        "recommender.learning_rate": 2e-3,
        "recommender.epochs": 12,
        "recommender.warmup_steps": 50,
    },
}
"""Models that score items: the traditional and the modality-fused ones, VQ-Rec."""

PROFILES = tuple(GENERATIVE)
