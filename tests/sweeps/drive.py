"""A driver with the fake stages, to be killed: drive.py STORE DATASET JSON, the JSON being the options of the study."""

import json
import sys
from pathlib import Path

from rich.console import Console

from bbqrec.store import Store
from sweeps.launch import Resources, launch
from sweeps.study import Study

if __name__ == "__main__":
    store, options = Store(sys.argv[1]), json.loads(sys.argv[3])
    study = Study(**{**options, "methods": tuple(options["methods"])}, name="ablations", datasets=(Path(sys.argv[2]),))
    ledger = launch(study.plan(store), store, Resources(), console=Console(), stages="fake_stages")
    sys.exit(0 if ledger.complete else 1)
