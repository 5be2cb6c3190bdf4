"""Every method as a complete configuration with its label, and the size profiles."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bbqrec.config import QuantizerConfig, RecommenderConfig, RunConfig
from bbqrec.errors import InputError, require_known
from bbqrec.overrides import with_overrides
from bbqrec.schema import Dataset


@dataclass(frozen=True, kw_only=True)
class Method:
    """`label` is the name in the tables, `table` the paper's tables and figures that show it."""

    label: str
    table: tuple[str, ...]
    quantizer: QuantizerConfig
    recommender: RecommenderConfig


QUANTIZER = QuantizerConfig()
RECOMMENDER = RecommenderConfig()


def _variant(
    label: str, table: tuple[str, ...], recommender: Mapping[str, Any] | None = None, **quantizer: Any
) -> Method:
    return Method(
        label=label,
        table=table,
        quantizer=replace(QUANTIZER, **quantizer),
        recommender=replace(RECOMMENDER, **(recommender or {})),
    )


METHODS: dict[str, Method] = {
    "bbqrec": _variant("BBQRec", ("Table 2", "Table 3", "Table 4", "Figure 4")),
    "bbqrec/no-mim": _variant("w/o MIM", ("Table 3",), disentangle=False),
    "bbqrec/no-rec": _variant("w/o Rec", ("Table 3",), contrastive=False, components=("text", "image")),
    "bbqrec/no-u": _variant("w/o U", ("Table 3",), shared=False),
    "bbqrec/s": _variant("S", ("Table 4",), {"similarity": False}),
    "bbqrec/e": _variant("E", ("Table 4",), {"inherit_codebook": True}),
    "bbqrec/no-id": _variant("w/o ID", ("Figure 4",), components=("text", "image")),
    "bbqrec/no-text": _variant("w/o text", ("Figure 4",), components=("id", "image")),
    "bbqrec/no-image": _variant("w/o image", ("Figure 4",), components=("id", "text")),
    "tiger": _variant(
        "TIGER",
        ("Table 2",),
        {"similarity": False, "disambiguate": True},
        components=("text",),
        disentangle=False,
        contrastive=False,
        unquantized_share=0.0,
    ),
}

PROFILES: dict[str, Mapping[str, Any]] = {
    # The sizes that the paper states, or that its baselines use where it states none.
    "paper": {},
    # Trains on two CPU cores: half the codebook width, a generator of 1.2 M parameters, packed histories.
    "small": {
        "quantizer.width": 64,
        "quantizer.hidden": 256,
        "quantizer.club_hidden": 64,
        "quantizer.batch_users": 128,
        "quantizer.epochs": 10,
        "recommender.history": "packed",
        "recommender.objective": "children",
        "recommender.dropout": 0.2,
        "recommender.batch_size": 64,
        "recommender.heads": 4,
        "recommender.head_width": 32,
        "recommender.d_ff": 256,
        "recommender.encoder_layers": 2,
        "recommender.decoder_layers": 2,
        "recommender.epochs": 20,
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
        "recommender.d_model": 64,
        "recommender.heads": 4,
        "recommender.head_width": 16,
        "recommender.d_ff": 128,
        "recommender.encoder_layers": 2,
        "recommender.decoder_layers": 1,
        "recommender.batch_size": 32,
        "recommender.learning_rate": 2e-3,
        "recommender.epochs": 12,
        "recommender.warmup_steps": 50,
    },
}


def run_config(
    method: str, dataset: Dataset, seed: int, profile: str = "paper", overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """The complete run of a method on a data set: profile first, then overrides.

    Components that the data set has no features for are left out, so that on a data set without images the full model
    and `w/o image` are one run. Raises InputError for an unknown method or profile, an override that is misspelt or no
    field of a stage (data set and seed are arguments of their own), or a method of which nothing is left.
    """
    require_known("method", method, METHODS)
    require_known("profile", profile, PROFILES)
    for path, value in (overrides or {}).items():
        stage, _, name = path.partition(".")
        if stage not in ("quantizer", "recommender") or not name:
            what = f"override {path}={value!r} names no field of a stage"
            raise InputError(what, "write quantizer.FIELD=VALUE or recommender.FIELD=VALUE")
    chosen = METHODS[method]
    run = RunConfig(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        seed=seed,
        quantizer=chosen.quantizer,
        recommender=chosen.recommender,
    )
    run = with_overrides(with_overrides(run, dict(PROFILES[profile])), dict(overrides or {}))
    absent = absent_components(run.quantizer, dataset)
    kept = tuple(c for c in run.quantizer.components if c not in absent)
    if not kept:
        raise InputError(
            f"method {method} needs {' or '.join(absent)} features, data set {dataset.name} has none",
            "prepare the data set with --features NAME=FILE or choose another method",
        )
    try:
        return replace(run, quantizer=replace(run.quantizer, components=kept))
    except ValueError as error:
        raise InputError(f"data set {dataset.name} has no {' or '.join(absent)}", str(error)) from error


def absent_components(config: QuantizerConfig, dataset: Dataset) -> tuple[str, ...]:
    """Components of the config that the data set cannot serve."""
    return tuple(m for m in config.modalities if m not in dataset.features or not dataset.features[m].present.any())
