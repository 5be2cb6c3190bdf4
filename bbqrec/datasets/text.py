"""Texts -> vectors, by any sentence-transformers model (extra `text`)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from bbqrec.errors import InputError
from bbqrec.files import one_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "sentence-transformers/sentence-t5-base"
"""The paper's text encoder."""


def load_encoder(model: str, device: str = "auto") -> "SentenceTransformer":
    """The model of a local folder or, by its name, of the local cache or the hub; `device` is auto, cpu or cuda.

    Raises InputError without sentence-transformers and for a model that cannot be found, reached or read.
    """
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        remedy = "install it with `pip install bbqrec[text]`, or leave the text out"
        raise InputError(f"sentence-transformers cannot be imported ({error})", remedy) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda is not available", "use auto or cpu")

    def load(local_files_only: bool) -> SentenceTransformer:
        return SentenceTransformer(
            model,
            device=None if device == "auto" else device,
            local_files_only=local_files_only,
            model_kwargs={"use_safetensors": True},  # the other format of weights is a pickle
        )

    # Below, any Exception: a model is other people's files read by other people's code, whose errors share no base.
    if Path(model).is_dir():
        try:
            return load(local_files_only=True)
        except Exception as error:
            what = f"cannot load a text model from {model} ({one_line(error)})"
            raise InputError(
                what, "give a folder that sentence-transformers saved, with safetensors weights"
            ) from error
    try:
        return load(local_files_only=True)
    except Exception:
        try:
            _reach(model)
            return load(local_files_only=False)
        except Exception as error:
            what = f"text model {model} is no folder and cannot be fetched ({one_line(error)})"
            raise InputError(what, "check its name and the network, or give a local folder that holds it") from error


def embed(
    texts: Sequence[str],
    encoder: "SentenceTransformer",
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda done: None,
) -> Float[np.ndarray, "n F"]:
    """One float32 vector per text, as the model gives them; `advance` is told the number of texts just done.

    Raises InputError for a batch size below 1 or one that does not fit into the GPU's memory.
    """
    import torch

    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is too small", "give at least 1")
    if not texts:
        return np.zeros((0, encoder.encode([""], show_progress_bar=False).shape[1]), dtype=np.float32)
    # By length, since the texts of a batch are padded to its longest; longest first, so that memory runs out at once.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    rows = []
    for batch in np.split(order, range(batch_size, len(order), batch_size)):
        try:
            found = encoder.encode([texts[i] for i in batch], batch_size=batch_size, show_progress_bar=False)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{batch_size} texts at once do not fit into the memory", "lower the batch size"
            ) from error
        rows.append(np.asarray(found, dtype=np.float32))
        advance(len(batch))
    vectors = np.concatenate(rows)
    vectors[order] = vectors.copy()
    return vectors


def _reach(model: str) -> None:
    """Ask the hub once: out of reach, loading would try several of the model's files for half a minute each."""
    from huggingface_hub import model_info

    model_info(model, timeout=10)
