"""What similarity-enhanced attention (Eq. 14-17) and composite IDs cost: one layer, a training step, decoding."""

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bbqrec.attention import Attention, SimilarityTable, mask_bias, similarity_buckets
from bbqrec.examples import evaluation_examples
from bbqrec.generation import generate
from bbqrec.precision import resolved
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import PAD
from benchmarks.inputs import DECODED_TOGETHER, DEVICE, Inputs, drawn, sorted_batches
from benchmarks.measure import Row, alternate, row, timed


def layer(inputs: Inputs, rounds: int, users: int = 32) -> Iterator[Row]:
    """A layer forward and backward over real histories; pairwise gather is Eq. 17 written down as it stands."""
    trainer = inputs.trainer("bbqrec")
    config, model = trainer.config, trainer.model
    examples = evaluation_examples(inputs.dataset, "test", config.max_history)
    history = examples.batch(drawn(len(examples.history), users, seed=3)).history
    real = history != PAD
    buckets = similarity_buckets(model.item_vectors[history], real, config.buckets)
    torch.manual_seed(0)
    attention = Attention(config.d_model, config.heads, config.head_width, config.attention_scale)
    similarity = SimilarityTable(config.buckets, config.heads, config.head_width, "uniform")
    x = torch.randn(users, history.shape[1] * model.levels, config.d_model, requires_grad=True)
    for causal in (False, True):
        visible = real[:, None, :].expand(-1, history.shape[1], -1)
        visible = visible.tril() if causal else visible
        bias = mask_bias(visible.repeat_interleave(model.levels, 1).repeat_interleave(model.levels, 2))[:, None]

        def passed(mix: Callable[[Tensor, Tensor], Tensor], bias: Tensor = bias) -> float:
            attention(x, attention.keys_values(x), bias, mix).square().mean().backward()
            return users

        fast = functools.partial(similarity, buckets=buckets, causal=causal)
        gather = functools.partial(_pairwise, similarity.table, buckets, model.levels)
        contenders = {
            "similarity": timed(functools.partial(passed, fast)),
            "plain": timed(functools.partial(passed, torch.matmul)),
            "pairwise gather": timed(functools.partial(passed, gather)),
        }
        rates = alternate(contenders, rounds)
        name = f"Attention layer{', causal' if causal else ''}"
        yield row(name, "users", rates, "similarity", "plain", at_most=2.0)
        yield row(name, "users", rates, "similarity", "pairwise gather", at_least=1.0)


def _pairwise(table: Tensor, buckets: Tensor, levels: int, alpha: Tensor, v: Tensor) -> Tensor:
    """Eq. 17 with a vector for every pair of tokens."""
    pairs = buckets.repeat_interleave(levels, 1).repeat_interleave(levels, 2)
    factors = table[pairs].unflatten(-1, (alpha.shape[1], -1)).permute(0, 3, 1, 2, 4)  # (B, H, TL, TL, C)
    return (alpha[..., None] * factors * v[:, :, None]).sum(3)


def training(inputs: Inputs, rounds: int, size: int = 256) -> Iterator[Row]:
    """A step of the full model and of variant S on the same rows, in both forms of history."""
    precisions = ["float32", "bfloat16"] if resolved("auto", DEVICE) == "bfloat16" else ["float32"]
    for (history, batch), precision in itertools.product((("prefix", size), ("packed", size // 4)), precisions):
        changes = {"history": history, "batch_size": batch, "precision": precision}
        full, plain = (inputs.trainer(method, **changes) for method in ("bbqrec", "bbqrec/s"))
        rows = drawn(len(full.examples.history), 2 * batch, seed=4)
        cut = sorted_batches(full.examples, rows, batch)
        rates = alternate({"BBQRec": timed(_steps(full, cut)), "S": timed(_steps(plain, cut))}, rounds)
        yield row(f"BBQRec training step, {history}, {precision}", "examples", rates, "BBQRec", "S", at_most=1.25)


def decoding(inputs: Inputs, rounds: int, users: int = 96) -> Iterator[Row]:
    """Composite IDs of three components and the similarity module against our own TIGER, a code a step."""
    for beam, most in ((50, 1.3), (100, 1.3)):
        contenders = {"BBQRec": "bbqrec", "TIGER": "tiger"}
        turns = {name: timed(_decoded(inputs, inputs.trainer(m), users, beam)) for name, m in contenders.items()}
        note = f"the paper's ratio: {1.9 if beam == 50 else 1.6}"
        yield row(
            f"Decoding, beam {beam}", "users", alternate(turns, rounds), "BBQRec", "TIGER", at_most=most, note=note
        )


def _steps(trainer: RecommenderTrainer, cut: list[np.ndarray]) -> Callable[[], float]:
    trainer.model.train()
    return lambda: sum(trainer.step(rows)[1] for rows in cut)


def _decoded(inputs: Inputs, trainer: RecommenderTrainer, users: int, beam: int) -> Callable[[], float]:
    trainer.model.eval()
    examples = evaluation_examples(inputs.dataset, "test", trainer.config.max_history)
    cut = sorted_batches(examples, drawn(len(examples.history), users, seed=5), DECODED_TOGETHER)

    def decoded() -> float:
        for rows in cut:
            generate(trainer.model, trainer.task.trie, examples.batch(rows).history, beam)
        return users

    return decoded
