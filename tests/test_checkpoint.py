"""A packed training state goes on exactly as the one that was packed."""

import json

import pytest
import torch
from torch import nn

from bbqrec.checkpoint import pack, unpack


class Trained:
    def __init__(self, seed: int, width: int = 5) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
        self.unused = nn.Parameter(torch.zeros(2))
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), self.unused], lr=0.1, fused=True)

    def step(self, number: int) -> None:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        self.optimizer.zero_grad()
        self.model(x).square().sum().backward()
        self.optimizer.step()

    @property
    def parts(self):
        return {"model": self.model, "optimizer": self.optimizer}


def state(trained: Trained) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trained.model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_going_on_equals_never_having_stopped():
    straight = Trained(0)
    for number in range(6):
        straight.step(number)
    first, second = Trained(0), Trained(99)
    for number in range(3):
        first.step(number)
    best = {"0.weight": torch.arange(6.0).view(3, 2).T}  # not contiguous
    blob = pack(first.parts, {"epoch": 3, "score": 0.1 + 0.2}, best)
    meta, extra = unpack(blob, second.parts)
    assert meta == {"epoch": 3, "score": 0.1 + 0.2} and torch.equal(extra["0.weight"], best["0.weight"])
    assert equal(state(first), state(second))
    for number in range(3, 6):
        second.step(number)
    assert equal(state(straight), state(second)) and not equal(state(first), state(second))


def test_it_is_a_safetensors_file_with_json():
    blob = pack(Trained(0).parts, {"epoch": 0})
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    assert json.loads(header["__metadata__"]["meta"]) == {"epoch": 0} and "model/0.weight" in header
    meta, extra = unpack(blob, Trained(1).parts)
    assert meta == {"epoch": 0} and extra == {}


def test_another_model_s_state_is_refused():
    blob = pack(Trained(0, width=4).parts, {})
    with pytest.raises(RuntimeError):
        unpack(blob, Trained(0, width=5).parts)
