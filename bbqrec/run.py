"""One complete run, and the keys under which its artefacts are stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bbqrec.config import QuantizerConfig, RecommenderConfig, StageConfig, TrainingConfig, digest, identity, to_json


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Data set (name and fingerprint), seed and both stages. A model over item IDs has no quantizer.

    `teacher` is another run on the same data, whose item vectors stage 1 learns from.
    """

    dataset: str
    fingerprint: str
    seed: int
    quantizer: StageConfig | None = field(default_factory=QuantizerConfig)
    recommender: TrainingConfig = field(default_factory=RecommenderConfig)
    teacher: "RunConfig | None" = None

    @property
    def quantizer_key(self) -> str | None:
        """Key of the stage-1 artefact: everything that can change it, and nothing else. None without a quantizer."""
        if self.quantizer is None:
            return None
        taught = {} if self.teacher is None else {"teacher": self.teacher.recommender_key}
        return _key(self.quantizer, self.seed, {"data": self.fingerprint, **taught})

    @property
    def recommender_key(self) -> str:
        """Key of the stage-2 artefact; it contains the stage-1 key, or names the data itself."""
        behind = ("data", self.fingerprint) if self.quantizer is None else ("quantizer", self.quantizer_key)
        return _key(self.recommender, self.seed, dict([behind]))

    def described(self) -> dict[str, Any]:
        """The run as plain JSON types, from which `methods.run_from_json` makes it again."""
        return {
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "quantizer": None if self.quantizer is None else to_json(self.quantizer),
            "recommender": to_json(self.recommender),
            "teacher": None if self.teacher is None else self.teacher.described(),
            "kinds": {
                "quantizer": None if self.quantizer is None else self.quantizer.kind,
                "recommender": self.recommender.kind,
            },
        }


def _key(config: StageConfig, seed: int, behind: Mapping[str, str | None]) -> str:
    about = {"stage": config.kind, "version": config.version, "seed": seed, "config": identity(config)}
    return digest({**about, **behind})
