"""What a driver knows if it is that of a job that `--submit` made: what Ray hands on of the laptop's words."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from bbqrec.provenance import source_state
from bbqrec.store import Store

OURS = "bbqrec"
"""What the metadata of our jobs have and those of others do not: the version that submitted them."""
TUNED_IN_STORE = "tuned"
"""Folder of the store with what tuning found, by study."""
UNFIT = r"[^\w.+=@-]"
"""Characters that a name in a store does not have."""


def metadata() -> dict[str, str]:
    """That of the job whose driver this process is; {} if it is none of ours."""
    found = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("metadata") or {}
    return found if OURS in found else {}


def command() -> str | None:
    """The command line as it was submitted."""
    return metadata().get("command")


def source() -> dict[str, Any]:
    """The state of the source: of a job that of the laptop's checkout, as its own folder has none."""
    told = metadata().get("source")
    return source_state() if told is None else json.loads(told)


def fetched() -> str | None:
    """How to get at what this process makes."""
    found = metadata()
    return f"python -m sweeps.jobs fetch {found.get('job_submission_id', found['study'])}" if found else None


def keep(store: Store, dataset: str, method: str, found: Mapping[str, Any]) -> None:
    """Leaves a file that tuning writes in the store, too, if this is a job: the job's own folder is gone with it."""
    if study := metadata().get("study"):
        store.write_json(f"{TUNED_IN_STORE}/{study}/{re.sub(UNFIT, '-', f'{dataset}-{method}')}.json", dict(found))
