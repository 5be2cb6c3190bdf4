"""T5 of Hugging Face transformers, trained and decoded as LETTER does it. Runs in an environment without bbqrec.

Reads arrays.npz; then a question per line on stdin, an answer per line on stdout. Tokens: 0 padding, 1 the start, then
a range per level.
"""

import json
import sys
import time

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

torch.set_num_threads(1)
given = np.load(sys.argv[1])
codes = given["codes"]
levels, size, width = given["embedding"].shape
tokens = 2 + np.arange(levels) * size + codes  # (I, L)


class LevelwiseT5(T5ForConditionalGeneration):
    """While it generates, the softmax runs over the codes of the level at hand, as in the model it is compared with."""

    def forward(self, *args, cache_position=None, **kwargs):
        out = super().forward(*args, cache_position=cache_position, **kwargs)
        if cache_position is not None and not self.training:
            first = 2 + int(cache_position[-1]) * size
            out.logits[..., :first] = -torch.inf
            out.logits[..., first + size :] = -torch.inf
        return out


def built() -> LevelwiseT5:
    c = {name: given[f"config/{name}"].item() for name in (
        "d_model", "heads", "head_width", "d_ff", "encoder_layers", "decoder_layers", "dropout",
        "relative_buckets", "relative_max_distance",
    )}  # fmt: skip
    model = LevelwiseT5(
        T5Config(
            vocab_size=2 + levels * size, d_model=c["d_model"], d_kv=c["head_width"], d_ff=c["d_ff"],
            num_layers=c["encoder_layers"], num_decoder_layers=c["decoder_layers"], num_heads=c["heads"],
            dropout_rate=c["dropout"], relative_attention_num_buckets=c["relative_buckets"],
            relative_attention_max_distance=c["relative_max_distance"], feed_forward_proj="relu",
            tie_word_embeddings=False, pad_token_id=0, decoder_start_token_id=1, eos_token_id=None,
        )
    )  # fmt: skip
    w = {name.removeprefix("weight/"): torch.from_numpy(given[name]) for name in given.files if "weight/" in name}
    state = {}
    table = torch.cat((torch.zeros(1, width), w["start"][None], torch.from_numpy(given["embedding"]).flatten(0, 1)))
    for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens"):
        state[f"{name}.weight"] = table
    state["lm_head.weight"] = torch.cat((torch.zeros(2, width), w["heads"].transpose(1, 2).flatten(0, 1)))
    for stack, layers in (("encoder", c["encoder_layers"]), ("decoder", c["decoder_layers"])):
        state[f"{stack}.final_layer_norm.weight"] = w[f"norm_{stack}.weight"]
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        state[bias] = w[f"{stack}_bias.table.weight"]
        for i in range(layers):
            parts = [("SelfAttention", "self_attention", "norm_self")]
            parts += [("EncDecAttention", "cross_attention", "norm_cross")] if stack == "decoder" else []
            for number, (theirs, ours, norm) in enumerate(parts):
                for matrix in "qkvo":
                    state[f"{stack}.block.{i}.layer.{number}.{theirs}.{matrix}.weight"] = w[
                        f"{stack}.{i}.{ours}.{matrix}.weight"
                    ]
                state[f"{stack}.block.{i}.layer.{number}.layer_norm.weight"] = w[f"{stack}.{i}.{norm}.weight"]
            feed = f"{stack}.block.{i}.layer.{len(parts)}"
            state[f"{feed}.DenseReluDense.wi.weight"] = w[f"{stack}.{i}.wi.weight"]
            state[f"{feed}.DenseReluDense.wo.weight"] = w[f"{stack}.{i}.wo.weight"]
            state[f"{feed}.layer_norm.weight"] = w[f"{stack}.{i}.norm_feed.weight"]
    model.load_state_dict(state)
    return model


def padded(histories: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, histories))
    ids = np.zeros((len(histories), longest * levels), dtype=np.int64)
    for row, history in enumerate(histories):
        ids[row, : len(history) * levels] = tokens[history].ravel()
    inputs = torch.from_numpy(ids)
    return inputs, (inputs != 0).long()


def train(question: dict) -> dict:
    model.train()
    began, count = time.process_time(), 0
    for batch in question["batches"]:
        inputs, mask = padded(batch["histories"])
        labels = torch.from_numpy(tokens[batch["targets"]])
        with torch.autocast("cpu", torch.bfloat16, enabled=question["bfloat16"]):
            loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        count += len(labels)
    return {"work": count, "seconds": time.process_time() - began}


def decode(question: dict) -> dict:
    model.eval()
    beam, lists = question["beam"], []
    began = time.process_time()
    for start in range(0, len(question["histories"]), question["batch"]):
        inputs, mask = padded(question["histories"][start : start + question["batch"]])
        with torch.no_grad():
            out = model.generate(
                input_ids=inputs, attention_mask=mask, num_beams=beam, num_return_sequences=beam,
                min_new_tokens=levels, max_new_tokens=levels, prefix_allowed_tokens_fn=allowed,
            )  # fmt: skip
        for user in out[:, 1:].view(len(inputs), beam, levels).tolist():
            lists.append([item for name in user for item in items_of.get(tuple(name), ())])
    return {"work": len(lists), "seconds": time.process_time() - began, "lists": lists}


def allowed(batch_id: int, sentence: torch.Tensor) -> list[int]:
    node = trie
    for token in sentence.tolist()[1:]:
        node = node.get(token, {})
    return list(node) or [0]


trie: dict = {}
items_of: dict = {}
for item, name in enumerate(tokens.tolist()):
    items_of.setdefault(tuple(name), []).append(item)
    node = trie
    for token in name:
        node = node.setdefault(token, {})
model = built()
rates = {"lr": given["config/learning_rate"].item(), "weight_decay": given["config/weight_decay"].item()}
optimizer = torch.optim.AdamW(model.parameters(), fused=True, **rates)
for line in sys.stdin:
    question = json.loads(line)
    answer = train(question) if question["do"] == "train" else decode(question)
    print(json.dumps(answer), flush=True)
