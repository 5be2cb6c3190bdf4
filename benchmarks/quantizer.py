"""A step of stage 1 against an RQ-VAE step on vector-quantize-pytorch, and CLUB in closed form against all pairs."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from bbqrec.methods import run_config
from bbqrec.mutual_information import club
from bbqrec.quantizer_training import QuantizerTrainer
from benchmarks.inputs import DEVICE, Inputs, drawn
from benchmarks.measure import Row, alternate, row, timed
from benchmarks.peer import Peer

REQUIREMENTS = ("vector-quantize-pytorch==1.23.1", "numpy>=2")


def step(inputs: Inputs, rounds: int) -> Iterator[Row]:
    """Distinct items per second; the full step also trains a sequence encoder on their users' histories."""
    users = {method: _stepping(inputs, method) for method in ("bbqrec", "tiger")}
    config = run_config("tiger", inputs.dataset, 0, "paper").quantizer
    sizes = ("hidden", "width", "levels", "codes", "learning_rate", "alpha")
    arrays = {f"config/{name}": np.asarray(getattr(config, name)) for name in sizes}
    arrays["features"] = inputs.dataset.features["text"].values.astype(np.float32)
    with Peer("residual_vq", REQUIREMENTS, arrays) as peer:
        rates = alternate(
            {
                "three signals, CLUB and L_Rec": timed(users["bbqrec"]),
                "text alone": timed(users["tiger"]),
                "ResidualVQ": peer.turn(do="train", batch=1024, steps=4),
            },
            rounds,
        )
    name = "Quantizer step"
    yield row(name, "items", rates, "three signals, CLUB and L_Rec", "ResidualVQ", at_least=1.0)
    yield row(name, "items", rates, "text alone", "ResidualVQ", at_least=2.0)


def _stepping(inputs: Inputs, method: str, batches: int = 2) -> Callable[[], float]:
    """Steps on random users' windows; returns how many distinct items they held."""
    config = run_config(method, inputs.dataset, 0, "paper").quantizer
    trainer = QuantizerTrainer(config, inputs.dataset, 0, DEVICE)
    trainer.model.train()
    trainer.start_codebook(torch.Generator().manual_seed(0))
    rows = drawn(len(trainer.lengths), batches * config.batch_users, seed=6)
    rows = rows[np.argsort(trainer.lengths[rows], kind="stable")]

    def stepped() -> float:
        done = 0
        for chosen in np.array_split(rows, batches):
            output, _ = trainer.step(chosen, 1.0, True)
            done += len(output.z)
        return done

    return stepped


def bound(inputs: Inputs, rounds: int, items: int = 512, width: int = 128) -> Iterator[Row]:
    """Eq. 3 forward and backward for a batch: the closed form of the inner mean, and the authors' N_B^2 pairs."""
    torch.manual_seed(0)
    mean, spread = (torch.randn(items, width, requires_grad=True) for _ in range(2))
    z = torch.randn(items, width)

    def closed() -> float:
        club(mean, spread.tanh(), z, "mean").backward()
        return items

    def pairs() -> float:
        log_variance = spread.tanh()
        own = -((mean - z) ** 2) / 2 / log_variance.exp()
        every = -((z[None] - mean[:, None]) ** 2).mean(1) / 2 / log_variance.exp()
        (own - every).mean().backward()
        return items

    rates = alternate({"closed form": timed(closed), "all pairs": timed(pairs)}, rounds)
    yield row(f"CLUB, {items} items", "items", rates, "closed form", "all pairs", at_least=10.0)
