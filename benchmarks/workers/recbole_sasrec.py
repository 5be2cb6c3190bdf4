"""RecBole's SASRec with its data pipeline, training loop and full ranking. Runs in an environment without bbqrec.

Reads arrays.npz; then a question per line on stdin, an answer per line on stdout.
"""

import contextlib
import itertools
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

torch.set_num_threads(1)
logging.disable(logging.CRITICAL)
given = np.load(sys.argv[1])
c = {name.removeprefix("config/"): given[name].item() for name in given.files if name.startswith("config/")}

folder = Path(tempfile.mkdtemp(prefix="recbole-"))
(folder / "real").mkdir()
lengths = np.diff(given["offsets"])
users = np.repeat(np.arange(len(lengths)), lengths)
times = np.concatenate([np.arange(n) for n in lengths])
rows = zip(users.tolist(), given["items"].tolist(), times.tolist(), strict=True)
lines = ["user_id:token\titem_id:token\ttimestamp:float", *(f"u{u}\ti{i}\t{t}" for u, i, t in rows)]
(folder / "real" / "real.inter").write_text("\n".join(lines) + "\n")

settings = {
    "data_path": str(folder), "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "MAX_ITEM_LIST_LENGTH": c["max_history"],
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    "train_batch_size": c["batch_size"], "eval_batch_size": 4096, "train_neg_sample_args": None, "loss_type": "CE",
    "hidden_size": c["d_model"], "inner_size": c["d_model"], "n_layers": c["layers"], "n_heads": c["heads"],
    "hidden_dropout_prob": c["dropout"], "attn_dropout_prob": c["dropout"], "learning_rate": c["learning_rate"],
    "metrics": ["Recall", "NDCG"], "topk": [5, 10], "valid_metric": "NDCG@10", "use_gpu": False, "show_progress": False,
    "reproducibility": False, "save_dataset": False, "checkpoint_dir": str(folder), "worker": 0, "state": "CRITICAL",
}  # fmt: skip
answers = sys.stdout
with contextlib.redirect_stdout(sys.stderr):
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    config = Config(model="SASRec", dataset="real", config_dict=settings)
    init_seed(0, False)
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    model = SASRec(config, train_data.dataset)
    trainer = Trainer(config, model)


class Some:
    """The next batches of the training data, as RecBole's training loop iterates over them."""

    def __init__(self) -> None:
        self.batches = itertools.chain.from_iterable(itertools.repeat(train_data))
        self.count, self.shuffle, self.seen = 0, False, 0

    def __iter__(self):
        for batch in itertools.islice(self.batches, self.count):
            self.seen += len(batch)
            yield batch


some = Some()
for line in sys.stdin:
    question = json.loads(line)
    began = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        if question["do"] == "train":
            some.count, some.seen = question["steps"], 0
            trainer._train_epoch(some, 0, show_progress=False)
            work = some.seen
        else:
            trainer.evaluate(valid_data, load_best_model=False, show_progress=False)
            work = len(lengths)
    print(json.dumps({"work": work, "seconds": time.process_time() - began}), file=answers, flush=True)
