"""A training state as bytes and back: safetensors with JSON in its header, never a pickle."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

Part = nn.Module | torch.optim.Optimizer


def pack(parts: Mapping[str, Part], meta: Mapping[str, Any], extra: Mapping[str, Tensor] | None = None) -> bytes:
    """Every tensor of the modules and optimisers, `extra` tensors by name, and `meta` (JSON types)."""
    tensors = {f"extra/{name}": value for name, value in (extra or {}).items()}
    for name, part in parts.items():
        tensors |= {f"{name}/{key}": value for key, value in _tensors(part).items()}
    return save(
        {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, {"meta": json.dumps(meta)}
    )


def unpack(blob: bytes, parts: Mapping[str, Part]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Load the parts in place; returns (meta, extra). Raises RuntimeError or KeyError for another model's bytes."""
    tensors = load(blob)
    for name, part in parts.items():
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if isinstance(part, nn.Module):
            part.load_state_dict(own)
        else:
            _load_optimizer(part, own)
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    extra = {key[len("extra/") :]: value for key, value in tensors.items() if key.startswith("extra/")}
    return json.loads(header["__metadata__"]["meta"]), extra


def _tensors(part: Part) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return dict(part.state_dict())
    state = part.state_dict()["state"]
    return {f"{index}/{name}": value for index, slots in state.items() for name, value in slots.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
