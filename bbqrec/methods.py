"""Every method as a complete configuration with its label, and a method's run on a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bbqrec import profiles
from bbqrec.baselines.bert4rec import BERT4RecConfig
from bbqrec.baselines.gru4rec import GRU4RecConfig
from bbqrec.baselines.letter import LetterQuantizerConfig, LetterRecommenderConfig
from bbqrec.baselines.missrec import MISSRecConfig
from bbqrec.baselines.nova_bert import NovaBERTConfig
from bbqrec.baselines.sasrec import SASRecConfig
from bbqrec.baselines.vqrec import VQRecConfig
from bbqrec.config import QuantizerConfig, RecommenderConfig, StageConfig, TrainingConfig
from bbqrec.errors import InputError, require_known
from bbqrec.overrides import from_json, with_overrides
from bbqrec.profiles import PROFILES, Overrides
from bbqrec.run import RunConfig
from bbqrec.schema import Dataset


@dataclass(frozen=True, kw_only=True)
class Method:
    """`label` is the name in the tables, `table` the paper's tables and figures that show it.

    `teacher` is the method whose item vectors stage 1 learns from. `fixed` are overrides that make it what it is: they
    win over profile and tuned config.
    """

    label: str
    table: tuple[str, ...]
    recommender: TrainingConfig
    quantizer: StageConfig | None = None
    teacher: str | None = None
    profiles: Mapping[str, Overrides]
    fixed: Overrides = field(default_factory=dict)


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
        profiles=profiles.GENERATIVE,
    )


def _item_model(label: str, recommender: TrainingConfig) -> Method:
    return Method(label=label, table=("Table 2",), recommender=recommender, profiles=profiles.ITEM_MODELS)


METHODS: dict[str, Method] = {
    "bbqrec": _variant("BBQRec", ("Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Figure 4")),
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
        ("Table 2", "Table 5", "Table 6"),
        {"similarity": False, "disambiguate": True},
        components=("text",),
        disentangle=False,
        contrastive=False,
        unquantized_share=0.0,
    ),
    "gru4rec": _item_model("GRU4Rec", GRU4RecConfig()),
    "bert4rec": _item_model("BERT4Rec", BERT4RecConfig()),
    "sasrec": _item_model("SASRec", SASRecConfig()),
    "gru4rec-f": _item_model("GRU4Rec_F", GRU4RecConfig(features=("text", "image"))),
    "sasrec-f": _item_model("SASRec_F", SASRecConfig(features=("text", "image"))),
    "nova-bert": _item_model("NOVA-BERT", NovaBERTConfig()),
    "missrec": _item_model("MISSRec", MISSRecConfig()),
    "vq-rec": _item_model("VQ-Rec", VQRecConfig()),
    "letter": Method(
        label="LETTER",
        table=("Table 2", "Table 5"),
        quantizer=LetterQuantizerConfig(),
        recommender=LetterRecommenderConfig(),
        teacher="sasrec",
        profiles=profiles.LETTER,
    ),
}


def variant(of: str, label: str, overrides: Overrides) -> Method:
    """Another entry for METHODS: a method with other values of some fields, whatever profile and tuning say of them.

    Call it "<method>/<name>" to have it use the method's tuned config in all else. Raises InputError for a method or a
    field that is not there.
    """
    require_known("method", of, METHODS)
    for path in overrides:
        if not _has_own(of, path):
            raise InputError(f"method {of} has no field {path}", "write quantizer.FIELD or recommender.FIELD")
    return replace(METHODS[of], label=label, table=(), fixed={**METHODS[of].fixed, **overrides})


KINDS = {config.kind: type(config) for m in METHODS.values() for config in (m.quantizer, m.recommender) if config}
"""The class of each kind of config, by which a stored run is read."""


def run_config(
    method: str,
    dataset: Dataset,
    seed: int,
    profile: str = "paper",
    overrides: Overrides | None = None,
    tuned: Mapping[str, Overrides] | None = None,
) -> RunConfig:
    """The complete run of a method on a data set: profile first, then what was `tuned`, what is fixed, then overrides.

    `tuned` holds overrides by method, the method's own and its teacher's. Modalities that the data set has no features
    for are left out, so that on a data set without images the full model and `w/o image` are one run. A teacher is run
    with the same profile, and with those of the overrides that it has a field for. Raises InputError for an unknown
    method or profile, an override that is misspelt or no field of a stage (data set and seed are arguments of their
    own), or a method of which nothing is left.
    """
    require_known("method", method, METHODS)
    require_known("profile", profile, PROFILES)
    overrides = dict(overrides or {})
    own = {**(tuned or {}).get(method, {}), **METHODS[method].fixed, **overrides}
    for path, value in own.items():
        stage, _, name = path.partition(".")
        if stage not in ("quantizer", "recommender") or not name:
            what = f"override {path}={value!r} names no field of a stage"
            raise InputError(what, "write quantizer.FIELD=VALUE or recommender.FIELD=VALUE")
    chosen = METHODS[method]
    teacher = None
    if chosen.teacher is not None:
        taught = {path: value for path, value in overrides.items() if has_field(chosen.teacher, path)}
        teacher = run_config(chosen.teacher, dataset, seed, profile, taught, tuned)
        own = {path: value for path, value in own.items() if _has_own(method, path) or path not in taught}
    run = RunConfig(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        seed=seed,
        quantizer=chosen.quantizer,
        recommender=chosen.recommender,
        teacher=teacher,
    )
    if run.quantizer is None and any(path.startswith("quantizer.") for path in own):
        raise InputError(f"method {method} has no quantizer", "leave out the overrides of quantizer")
    run = with_overrides(with_overrides(run, dict(chosen.profiles[profile])), own)
    quantizer = None if run.quantizer is None else _served(run.quantizer, method, dataset)
    return replace(run, quantizer=quantizer, recommender=_served(run.recommender, method, dataset))


def has_field(method: str, path: str) -> bool:
    """Whether a method's configuration, or its teacher's, has the field that a dotted override names."""
    teacher = METHODS[method].teacher
    return _has_own(method, path) or (teacher is not None and has_field(teacher, path))


def _has_own(method: str, path: str) -> bool:
    stage, _, name = path.partition(".")
    config = getattr(METHODS[method], stage, None) if stage in ("quantizer", "recommender") else None
    return config is not None and name in {f.name for f in fields(config)}


def run_from_json(value: Mapping[str, Any]) -> RunConfig:
    """The inverse of `RunConfig.described`. Raises InputError for a kind or a field that is no more."""
    absent = [name for name in ("dataset", "fingerprint", "seed", "quantizer", "recommender") if name not in value]
    if absent:
        raise InputError(f"a run without {', '.join(absent)}", "give a config.json that the program wrote")
    kinds = value.get("kinds") or {"quantizer": QuantizerConfig.kind, "recommender": RecommenderConfig.kind}
    stages: dict[str, Any] = {}
    for stage, kind in kinds.items():
        if kind is not None:
            require_known("kind", kind, KINDS)
        stages[stage] = None if kind is None else from_json(KINDS[kind], value[stage])
    teacher = value.get("teacher")
    about = {name: value[name] for name in ("dataset", "fingerprint", "seed")}
    return RunConfig(**about, **stages, teacher=None if teacher is None else run_from_json(teacher))


def lacking(method: str, dataset: Dataset) -> tuple[str, ...]:
    """Modalities that a method reads and the data set has no features for."""
    chosen = METHODS[method]
    asked = [m for config in (chosen.quantizer, chosen.recommender) for m in _modalities(config)]
    return tuple(m for m in dict.fromkeys(asked) if not _has(dataset, m))


def _served(config: Any, method: str, dataset: Dataset) -> Any:
    """The config without the modalities that the data set has no features for."""
    name = "features" if isinstance(config, TrainingConfig) else "components"
    absent = [m for m in _modalities(config) if not _has(dataset, m)]
    if not absent:
        return config
    kept = tuple(m for m in getattr(config, name) if m not in absent)
    if not kept:
        raise InputError(
            f"method {method} needs {' or '.join(absent)} features, data set {dataset.name} has none",
            "prepare the data set with --features NAME=FILE or choose another method",
        )
    try:
        return replace(config, **{name: kept})
    except ValueError as error:
        raise InputError(f"data set {dataset.name} has no {' or '.join(absent)}", str(error)) from error


def _modalities(config: Any) -> tuple[str, ...]:
    """The modalities whose features a stage reads."""
    if isinstance(config, TrainingConfig):
        return tuple(getattr(config, "features", ()))
    return () if config is None else config.modalities


def _has(dataset: Dataset, modality: str) -> bool:
    return modality in dataset.features and bool(dataset.features[modality].present.any())
