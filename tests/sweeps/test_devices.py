"""A run's device: what Ray gave it, and what torch can use of that."""

import pytest
import ray
import torch

from bbqrec.errors import InputError
from sweeps import devices


@pytest.mark.parametrize(
    ("given", "usable", "driver", "expected"),
    [([], True, True, "cpu"), ([0], True, True, "cuda"), ([0], False, False, "cpu"), ([0.5], True, False, "cuda")],
)
def test_a_run_computes_where_ray_put_it(monkeypatch, tmp_path, given, usable, driver, expected):
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path if driver else tmp_path / "none")
    assert devices.device() == expected


def test_a_gpu_that_torch_cannot_use_is_not_held_for_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path)
    with pytest.raises(InputError, match="does not see the GPU"):
        devices.device()
