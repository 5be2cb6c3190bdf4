"""TIGER against Hugging Face's T5 as LETTER trains and decodes it: same sizes, same data, same weights."""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch

from bbqrec.decoding import item_lists
from bbqrec.errors import InputError
from bbqrec.examples import Examples, evaluation_examples
from bbqrec.generation import generate
from bbqrec.precision import resolved
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import PAD
from benchmarks.inputs import DECODED_TOGETHER, DEVICE, Inputs, drawn, sorted_batches
from benchmarks.measure import Contender, Row, alternate, row, timed
from benchmarks.peer import Peer

REQUIREMENTS = ("transformers==4.51.3", "numpy<2")
BATCH = 256
EXAMPLES = 768
PADDED = "HF T5, padded, float32"


def _peer(trainer: RecommenderTrainer) -> Peer:
    """HF T5 with this model's sizes and weights; item i's tokens are its codes, a range of the vocabulary per level."""
    model, config = trainer.model, trainer.config
    arrays = {f"weight/{name}": value.numpy() for name, value in model.state_dict().items() if "item_" not in name}
    sizes: tuple[str, ...] = ("d_model", "heads", "head_width", "d_ff", "encoder_layers", "decoder_layers", "dropout")
    sizes += ("relative_buckets", "relative_max_distance", "learning_rate", "weight_decay")
    arrays |= {f"config/{name}": np.asarray(getattr(config, name)) for name in sizes}
    arrays["embedding"] = model.embedding.fused()[:, 0].detach().numpy()  # (L, N, E)
    arrays["codes"] = model.item_codes[:-1, :, 0].numpy()  # (I, L)
    return Peer("hf_t5", REQUIREMENTS, arrays)


def _histories(histories: np.ndarray) -> list[list[int]]:
    return [[int(item) for item in history if item != PAD] for history in histories]


def training(inputs: Inputs, rounds: int) -> Iterator[Row]:
    """A step of training: every prefix an example of its own, and the packed form, in which a user is one pass.

    Float32 against float32, bfloat16 against bfloat16, and our default against what the public code does.
    """
    precisions = ["float32", "bfloat16"] if resolved("auto", DEVICE) == "bfloat16" else ["float32"]
    with contextlib.ExitStack() as stack:
        turns: dict[str, Contender] = {}
        for precision in precisions:
            trainer = inputs.trainer("tiger", precision=precision)
            packed = inputs.trainer("tiger", precision=precision, history="packed", batch_size=64)
            examples = trainer.examples
            rows = drawn(len(examples.history), EXAMPLES, seed=1)
            cut = sorted_batches(examples, rows, BATCH)
            users = drawn(len(packed.examples.history), EXAMPLES // 4, seed=1)
            packed_cut = sorted_batches(packed.examples, users, 64)
            turns[f"prefixes, {precision}"] = timed(functools.partial(_steps, trainer, cut))
            turns[f"packed, {precision}"] = timed(functools.partial(_steps, packed, packed_cut))
            peer = stack.enter_context(_peer(trainer))
            question = {"do": "train", "bfloat16": precision == "bfloat16"}
            if precision == "float32":
                unsorted = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
                turns[PADDED] = peer.turn(**question, batches=_batches(examples, unsorted))
            turns[f"HF T5, sorted, {precision}"] = peer.turn(**question, batches=_batches(examples, cut))
        rates = alternate(turns, rounds)
    name, unit = "TIGER training step", "examples"
    note = "another encoder: causal over items, a whole history in one pass"
    for precision in precisions:
        yield row(name, unit, rates, f"prefixes, {precision}", PADDED, at_least=4.0)
        yield row(name, unit, rates, f"prefixes, {precision}", f"HF T5, sorted, {precision}", at_least=1.5)
        yield row(name, unit, rates, f"packed, {precision}", PADDED, at_least=4.0, note=note)
        yield row(name, unit, rates, f"packed, {precision}", f"HF T5, sorted, {precision}", at_least=1.5, note=note)


def _steps(trainer: RecommenderTrainer, cut: list[np.ndarray]) -> float:
    return sum(trainer.step(rows)[1] for rows in cut)


def _batches(examples: Examples, cut: list[np.ndarray]) -> list[dict]:
    return [{"histories": _histories(examples.history[b]), "targets": examples.target[b, 0].tolist()} for b in cut]


def decoding(inputs: Inputs, rounds: int, users: int = 96) -> Iterator[Row]:
    """Constrained beam search over the same IDs with the same weights. Raises InputError if the lists differ."""
    trainer = inputs.trainer("tiger")
    trainer.model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        trainer.model.heads.mul_(4)  # an untrained model's scores are all but ties
    examples = evaluation_examples(inputs.dataset, "test", trainer.config.max_history)
    rows = drawn(len(examples.history), users, seed=2)
    with _peer(trainer) as peer:
        for beam, least in ((20, 12.0), (50, 20.0)):
            cut = sorted_batches(examples, rows, DECODED_TOGETHER)
            lists: dict[int, list[int]] = {}

            def ours(beam: int = beam, cut: list[np.ndarray] = cut, lists: dict[int, list[int]] = lists) -> float:
                for chosen in cut:
                    beams = generate(trainer.model, trainer.task.trie, examples.batch(chosen).history, beam)
                    found = item_lists(beams, trainer.task.trie, beam)
                    lists |= {int(u): [item for item, _ in ranked] for u, ranked in zip(chosen, found, strict=True)}
                return len(rows)

            question = {"do": "decode", "histories": _histories(examples.history[rows]), "beam": beam, "batch": 32}
            rates = alternate({"ours": timed(ours), "HF generate": peer.turn(**question)}, rounds)
            theirs = peer.ask(**question)["lists"]
            same = sum(lists[int(user)] == other for user, other in zip(rows, theirs, strict=True))
            if same < users * 0.95:  # float32 sums in another order may swap what is all but equal
                raise InputError(f"beam {beam}: {same} of {users} lists are equal", "the two models are not the same")
            yield row(
                f"TIGER beam {beam}", "users", rates, "ours", "HF generate", at_least=least,
                note=f"{same} of {users} lists identical",
            )  # fmt: skip
