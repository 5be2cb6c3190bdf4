"""A cell of a study: one number of a table, and what a reader has to know beside it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bbqrec.methods import lacking
from bbqrec.schema import Dataset


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one data set with one seed, and the keys of the run and of the quantizer that it shows.

    `setting` is what the study varies beside methods, data sets and seeds, as "field=value field=value".
    """

    method: str
    label: str
    dataset: str
    fingerprint: str
    seed: int
    setting: str | None = None
    quantizer_key: str | None
    run_key: str
    teacher_key: str | None = None
    """The run that its quantizer learns from."""
    tuned: str | None = None
    """The tuned configs that it uses, or why it does not use one that is there."""
    note: str | None = None


def described(setting: Mapping[str, Any]) -> str | None:
    """Overrides in words, None without any."""
    return " ".join(f"{field}={value}" for field, value in setting.items()) or None


def note(method: str, same: str, dataset: Dataset, without: Collection[str], tuned: str | None) -> str | None:
    """What a reader of the cell has to know: modalities that the data set lacks, overrides that are not this method's,
    tuned configs, and that the run is another's too."""
    absent = lacking(method, dataset)
    notes = [f"without {' and '.join(absent)}: {dataset.name} has none"] if absent else []
    notes += [f"has no field {path}" for path in sorted(without)]
    notes += [tuned] if tuned else []
    notes += [f"the same run as {same}"] if same != method else []
    return "; ".join(notes) or None
