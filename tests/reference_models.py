"""Both stages' whole models in numpy, read off their weights by name, over the loops of reference.py."""

import math

import numpy as np
import reference as ref


def weights_of(model) -> dict[str, np.ndarray]:
    return {
        name: value.detach().numpy().astype(np.float64)
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def rms_norm(x, weight):
    return np.array([row / math.sqrt(sum(row * row) / len(row) + 1e-6) * weight for row in x])


def layer_norm(x, weight=1.0, bias=0.0):
    rows = [(row - sum(row) / len(row)) for row in x]
    return np.array([row / math.sqrt(sum(row * row) / len(row) + 1e-5) * weight + bias for row in rows])


def _attention_weights(w, prefix):
    return {name: w[f"{prefix}.{name}.weight"] for name in "qkvo"}


def _position_bias(table, queries, keys, bidirectional, config):
    bias = np.zeros((table.shape[1], queries, keys))
    for i in range(queries):
        for j in range(keys):
            bucket = ref.relative_bucket(j - i, bidirectional, config.relative_buckets, config.relative_max_distance)
            bias[:, i, j] = table[bucket]
    return bias


def _feed(x, w, prefix):
    hidden = np.maximum(rms_norm(x, w[f"{prefix}.norm_feed.weight"]) @ w[f"{prefix}.wi.weight"].T, 0)
    return x + hidden @ w[f"{prefix}.wo.weight"].T


def position_embedding(w, config, level, codes):
    """NOTES 2: the components' table rows concatenated, then a linear map; or their sum."""
    rows = [w["embedding.tables"][level, m, code] for m, code in enumerate(codes)]
    return w["embedding.fuse.weight"] @ np.concatenate(rows) if config.fusion == "concat" else sum(rows)


def encoder(w, config, codes, vectors, history):
    """States (T L, E) of a history without padding."""
    levels = codes.shape[1]
    tokens = [position_embedding(w, config, level, codes[item, level]) for item in history for level in range(levels)]
    x, count = np.array(tokens), len(tokens)
    scale = 1.0 if config.attention_scale == "t5" else 1 / math.sqrt(config.head_width)
    bias = _position_bias(w["encoder_bias.table.weight"], count, count, True, config)
    packed = config.history == "packed"
    visible = [[not packed or j // levels <= i // levels for j in range(count)] for i in range(count)]
    for n in range(config.encoder_layers):
        name, e_sim = f"encoder.{n}", None
        if config.similarity:
            index = ref.similarity_buckets([vectors[i] for i in history], [True] * len(history), config.buckets)
            learned = w[f"{name}.similarity.delta"]
            e_sim = np.vstack([1 + learned, np.ones_like(learned[:1])])[index]
        normed = rms_norm(x, w[f"{name}.norm_self.weight"])
        own = _attention_weights(w, f"{name}.self_attention")
        x = x + ref.attention(normed, normed, own, config.heads, scale, bias, visible, e_sim, levels)
        x = _feed(x, w, name)
    return rms_norm(x, w["norm_encoder.weight"])


def next_scores(w, config, codes, memory, prefix):
    """Log-probabilities (M, N) of the level behind a prefix of codes."""
    return np.array([ref.log_softmax(list(row)) for row in all_logits(w, config, codes, memory, prefix)[len(prefix)]])


def all_logits(w, config, codes, memory, prefix):
    """Logits (L, M, N) that every level's heads give to the state behind a prefix of codes."""
    level, components = len(prefix), codes.shape[2]
    first = w["start"]
    if config.decoder_start != "learned":  # and the mean of the last item's states
        first = first + sum(memory[-codes.shape[1] :]) / codes.shape[1]
    later = [position_embedding(w, config, place, c) for place, c in enumerate(prefix)]
    if config.decoder_start == "every":
        later = [first + embedding for embedding in later]
    x = np.array([first, *later])
    scale = 1.0 if config.attention_scale == "t5" else 1 / math.sqrt(config.head_width)
    bias = _position_bias(w["decoder_bias.table.weight"], level + 1, level + 1, False, config)
    causal = [[j <= i for j in range(level + 1)] for i in range(level + 1)]
    far = np.zeros((config.heads, level + 1, len(memory)))
    if config.history == "packed":  # all positions of an item stand equally far back
        items = len(memory) // codes.shape[1]
        for key in range(len(memory)):
            back = items - 1 - key // codes.shape[1]
            bucket = ref.relative_bucket(-back, False, config.relative_buckets, config.relative_max_distance)
            far[:, :, key] = w["cross_relative.table.weight"][bucket][:, None]
    for n in range(config.decoder_layers):
        name = f"decoder.{n}"
        normed = rms_norm(x, w[f"{name}.norm_self.weight"])
        own = _attention_weights(w, f"{name}.self_attention")
        x = x + ref.attention(normed, normed, own, config.heads, scale, bias, causal)
        cross = _attention_weights(w, f"{name}.cross_attention")
        query = rms_norm(x, w[f"{name}.norm_cross.weight"])
        x = x + ref.attention(query, memory, cross, config.heads, scale, far, np.ones(far.shape[1:]))
        x = _feed(x, w, name)
    last = rms_norm(x, w["norm_decoder.weight"])[-1]
    return np.array([(last @ heads).reshape(components, -1) for heads in w["heads"]])


def mlp(w, prefix, x):
    hidden = np.maximum(x @ w[f"{prefix}.0.weight"].T + w[f"{prefix}.0.bias"], 0)
    return hidden @ w[f"{prefix}.2.weight"].T + w[f"{prefix}.2.bias"]


def standardised(values, present):
    out = np.zeros(values.shape)
    for f in range(values.shape[1]):
        column = [float(values[i, f]) for i in range(len(values)) if present[i]]
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((c - mean) ** 2 for c in column) / len(column))
        for i in range(len(values)):
            out[i, f] = (values[i, f] - mean) / (deviation if deviation > 1e-8 else 1.0) if present[i] else 0.0
    return out


def batch_norm(w, prefix, x, training: bool):
    """Per column: the moments of these rows in training, the running ones in evaluation."""
    out = np.zeros(x.shape)
    for d in range(x.shape[1]):
        mean = sum(x[:, d]) / len(x) if training else w[f"{prefix}.running_mean"][d]
        variance = sum((x[:, d] - mean) ** 2) / len(x) if training else w[f"{prefix}.running_var"][d]
        out[:, d] = (x[:, d] - mean) / math.sqrt(variance + 1e-5)
    return out


def encoded(w, raw, name, encoder, items, training: bool, otherwise):
    """Eq. 2 for the items that have the modality, `otherwise` for those that lack it."""
    have = [n for n, item in enumerate(items) if raw.present[item]]
    x = standardised(raw.values, raw.present)[items][have]
    z = batch_norm(w, f"{name}.{encoder}.norm", mlp(w, f"{name}.{encoder}.map", x), training)
    out = np.tile(otherwise, (len(items), 1))
    for n, row in zip(have, z, strict=True):
        out[n] = row
    return out


def latents(w, config, features, items, training: bool):
    """Z of Eq. 4 (R, M, D) for the distinct items of a batch, each vector normalised over its width."""
    columns = []
    for component in config.components:
        if component == "id":
            columns.append(w["id_embedding.weight"][items])
        else:
            missing = w[f"modalities.{component}.missing"]
            raw, name = features[component], f"modalities.{component}"
            columns.append(encoded(w, raw, name, "behaviour", items, training, missing))
    return np.stack([layer_norm(column) for column in columns], axis=1)


def sequence_encoder(w, x, layers: int, heads: int, causal: bool = True):
    """h_t of Eq. 11 for x (T, W): the pre-norm encoder, token by token."""
    position = w["sequence_encoder.position"][: len(x)]
    x = x + (position if causal else position[::-1])
    for n in range(layers):
        x = sequence_layer(w, f"sequence_encoder.layers.{n}", x, heads, causal, lambda normed: normed)
    return layer_norm(x, w["sequence_encoder.norm.weight"], w["sequence_encoder.norm.bias"])


def sequence_layer(w, name: str, x, heads: int, causal: bool, fuse):
    """One layer; queries and keys are read from `fuse` of the normed tokens."""
    normed = layer_norm(x, w[f"{name}.norm_attention.weight"], w[f"{name}.norm_attention.bias"])
    parts, biases = np.split(w[f"{name}.qkv.weight"], 3), np.split(w[f"{name}.qkv.bias"], 3)
    asked = fuse(normed)
    scale = 1 / math.sqrt(x.shape[1] / heads)
    q, k, v = (rows @ p.T + b for rows, p, b in zip((asked, asked, normed), parts, biases, strict=True))
    mixed = np.zeros(x.shape)
    for h in np.split(np.arange(x.shape[1]), heads):  # the columns of a head
        for i in range(len(x)):
            seen = [j for j in range(len(x)) if j <= i or not causal]
            logs = ref.log_softmax([scale * sum(q[i, c] * k[j, c] for c in h) for j in seen])
            for log, j in zip(logs, seen, strict=True):
                mixed[i, h] += math.exp(log) * v[j, h]
    x = x + mixed @ w[f"{name}.out.weight"].T + w[f"{name}.out.bias"]
    normed = layer_norm(x, w[f"{name}.norm_feed.weight"], w[f"{name}.norm_feed.bias"])
    hidden = np.maximum(normed @ w[f"{name}.feed.0.weight"].T + w[f"{name}.feed.0.bias"], 0)
    return x + hidden @ w[f"{name}.feed.3.weight"].T + w[f"{name}.feed.3.bias"]


def cloze_scores(w, h, items):
    """BERT4Rec, Eq. 7, of one state: the error function written out, then every item."""
    rows = w["cloze.head.0.weight"] @ h + w["cloze.head.0.bias"]
    active = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in rows])
    read = layer_norm(active[None], w["cloze.head.2.weight"], w["cloze.head.2.bias"])[0]
    return np.array([sum(read * item) + b for item, b in zip(items, w["cloze.bias"], strict=True)])
