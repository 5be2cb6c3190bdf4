"""Embedding by a real sentence-transformers model, tiny and made here: no model hub is asked for one."""

import string
import sys
from pathlib import Path

import numpy as np
import pytest

from bbqrec.datasets.text import DEFAULT_MODEL, embed, load_encoder
from bbqrec.errors import InputError

WIDTH = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A BERT of one layer with random weights that spells every word, mean-pooled."""
    pytest.importorskip("sentence_transformers", reason="the extra `text` (sentence-transformers) is not installed")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    bert, saved = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("model")
    letters = list(string.ascii_lowercase)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (bert / "vocab.txt").write_text("\n".join(tokens))
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=40,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(bert)
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    SentenceTransformer(str(bert), device="cpu").save(str(saved))  # adds mean pooling
    return saved


@pytest.fixture
def absent_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)


@pytest.mark.slow  # importing sentence-transformers takes that long
def test_one_vector_per_text_in_their_order(model):
    texts = ["red car", "a", "a wooden train with many colourful wagons", "", "red car", "blue car"]
    encoder = load_encoder(str(model), "cpu")
    told = []
    vectors = embed(texts, encoder, batch_size=4, advance=told.append)
    assert vectors.shape == (6, WIDTH) and vectors.dtype == np.float32
    one_by_one = np.stack([encoder.encode(text, show_progress_bar=False) for text in texts])
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-5)
    assert np.abs(vectors[0] - vectors[5]).max() > 1e-2
    assert told == [4, 2]
    assert embed([], encoder).shape == (0, WIDTH)
    with pytest.raises(InputError, match="batch size 0 is too small"):
        embed(texts, encoder, batch_size=0)


@pytest.mark.slow
def test_a_folder_without_a_model(model, tmp_path):
    with pytest.raises(InputError, match="cannot load a text model from"):
        load_encoder(str(tmp_path), "cpu")
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(InputError, match="cannot load a text model from") as caught:
        load_encoder(str(tmp_path), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_pickled_weights_are_refused(model, tmp_path):
    import torch

    for file in model.rglob("*"):
        target = tmp_path / file.relative_to(model)
        if file.is_dir():
            target.mkdir()
        elif file.suffix != ".safetensors":
            target.write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load a text model from"):
        load_encoder(str(tmp_path), "cpu")


@pytest.mark.slow
def test_a_hub_out_of_reach_is_asked_once(model, monkeypatch):
    import huggingface_hub

    asked = []

    def refuse(name: str, timeout: float) -> None:
        asked.append(name)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    with pytest.raises(InputError, match=r"text model nobody/nothing .*no route to host.*local folder"):
        load_encoder("nobody/nothing")
    assert asked == ["nobody/nothing"]


@pytest.mark.slow
def test_a_gpu_that_is_not_there(model):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device cuda is not available"):
        load_encoder(str(model), "cuda")


def test_without_the_package(absent_package):
    with pytest.raises(InputError, match=r"pip install bbqrec\[text\]"):
        load_encoder(DEFAULT_MODEL)
