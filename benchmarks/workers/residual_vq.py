"""An RQ-VAE step on vector-quantize-pytorch's ResidualVQ. Runs in an environment without bbqrec.

Reads arrays.npz; then a question per line on stdin, an answer per line on stdout.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ

torch.set_num_threads(1)
given = np.load(sys.argv[1])
c = {name.removeprefix("config/"): given[name].item() for name in given.files if name.startswith("config/")}
raw = torch.from_numpy(given["features"])
features = (raw - raw.mean(0)) / raw.std(0).clamp(min=1e-8)


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, c["hidden"]), nn.ReLU(), nn.Linear(c["hidden"], outputs))


torch.manual_seed(0)
encoder, decoder = mlp(features.shape[1], c["width"]), mlp(c["width"], features.shape[1])
quantizer = ResidualVQ(
    dim=c["width"], num_quantizers=c["levels"], codebook_size=c["codes"], commitment_weight=c["alpha"], kmeans_init=True
)
parts = nn.ModuleList((encoder, quantizer, decoder)).train()
optimizer = torch.optim.AdamW(parts.parameters(), lr=c["learning_rate"])
for line in sys.stdin:
    question = json.loads(line)
    began = time.process_time()
    for _ in range(question["steps"]):
        x = features[torch.randint(len(features), (question["batch"],))]
        q, _, commitment = quantizer(encoder(x)[:, None])
        loss = (decoder(q[:, 0]) - x).square().mean() + commitment.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    work = question["steps"] * question["batch"]
    print(json.dumps({"work": work, "seconds": time.process_time() - began}), flush=True)
