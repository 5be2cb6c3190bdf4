"""Every variant is what its row of the paper's tables says, and learns something else than the full model."""

import dataclasses
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bbqrec.baselines.letter import LetterQuantizerConfig, LetterRecommenderConfig
from bbqrec.config import QuantizerConfig, RecommenderConfig
from bbqrec.errors import InputError
from bbqrec.letter_training import LetterTrainer
from bbqrec.methods import METHODS, has_field, run_config, run_from_json
from bbqrec.profiles import PROFILES
from bbqrec.quantizer_training import QuantizerTrainer
from bbqrec.recommender_training import RecommenderTrainer
from bbqrec.schema import Codes, Dataset, Features
from bbqrec.tasks import build_recommender, semantic_ids

SMALL = {
    "quantizer.codes": 16, "quantizer.width": 8, "quantizer.hidden": 10, "quantizer.club_hidden": 6,
    "quantizer.sequence_heads": 2, "quantizer.batch_users": 30, "quantizer.gamma_warmup_epochs": 0,
    "quantizer.unquantized_share": 0, "quantizer.clusters": 4,
    "recommender.d_model": 12, "recommender.heads": 2, "recommender.head_width": 4, "recommender.d_ff": 8,
    "recommender.encoder_layers": 1, "recommender.batch_size": 20, "recommender.learning_rate": 0.03,
    "recommender.warmup_steps": 1, "recommender.validation_users": 5,
}  # fmt: skip
CPU = torch.device("cpu")
FULL = METHODS["bbqrec"]
CODED = [method for method in METHODS if METHODS[method].quantizer is not None]
"""BBQRec, its variants and the baselines that generate codes; models over items: tests/baselines."""


def small_run(method: str, dataset: Dataset):
    return run_config(method, dataset, 3, "tiny", {p: value for p, value in SMALL.items() if has_field(method, p)})


def quantizer_trainer(run, dataset: Dataset) -> QuantizerTrainer | LetterTrainer:
    """The loop of stage 1; a teacher is trained for an epoch."""
    if run.teacher is None:
        return QuantizerTrainer(run.quantizer, dataset, 3, CPU)
    teacher = RecommenderTrainer(run.teacher.recommender, dataset, None, 3, CPU)
    teacher.train_epoch()
    return LetterTrainer(run.quantizer, dataset, teacher.task.item_vectors(), 3, CPU)


@pytest.fixture(scope="module")
def trained(tiny_dataset):
    """Per method: its first epoch's losses of both stages, its models; equal quantizers run once."""
    stages: dict[str, tuple[dict[str, float], Codes, set[str]]] = {}
    found = {}
    for method in CODED:
        run = small_run(method, tiny_dataset)
        if run.quantizer_key not in stages:
            first = quantizer_trainer(run, tiny_dataset)
            report = first.train_epoch()
            stages[run.quantizer_key] = report, first.model.codes(tiny_dataset.num_items), set(first.model.state_dict())
        report, codes, names = stages[run.quantizer_key]
        second = RecommenderTrainer(run.recommender, tiny_dataset, codes, 3, CPU)
        found[method] = {
            "losses": {k: v for k, v in report.items() if k.startswith("loss/")},
            "loss": second.train_epoch()["loss"],
            "quantizer": names,
            "recommender": set(second.model.state_dict()),
            "codes": codes,
        }
    return found


@pytest.mark.parametrize("method", [m for m in CODED if m != "bbqrec"])
def test_first_losses_differ_from_the_full_model_s(trained, method):
    own, full = trained[method], trained["bbqrec"]
    assert abs(own["loss"] - full["loss"]) > 1e-6
    if METHODS[method].quantizer != FULL.quantizer:
        assert abs(own["losses"]["loss/total"] - full["losses"]["loss/total"]) > 1e-4
    else:
        assert own["losses"] == full["losses"]


def test_no_two_methods_learn_the_same(trained):
    losses = [round(found["loss"], 9) for found in trained.values()]
    assert len(set(losses)) == len(CODED)


def test_the_parts_that_a_variant_lacks(trained):
    def has(method: str, stage: str, word: str) -> bool:
        return any(word in name for name in trained[method][stage])

    for method in CODED:
        text = method in ("tiger", "letter")
        assert has(method, "quantizer", "specific") == (method != "bbqrec/no-mim" and not text)
        assert has(method, "quantizer", "variational") == (method != "bbqrec/no-mim" and not text)
        assert has(method, "quantizer", "sequence_encoder") == (method != "bbqrec/no-rec" and not text)
        assert has(method, "quantizer", "id_embedding") == (
            method not in ("bbqrec/no-rec", "bbqrec/no-id") and not text
        )
        assert has(method, "quantizer", "modalities.text") == (method != "bbqrec/no-text")
        assert has(method, "quantizer", "modalities.image") == (method != "bbqrec/no-image" and not text)
        assert has(method, "quantizer", "teacher") == (method == "letter")
        assert has(method, "recommender", "similarity.delta") == (method != "bbqrec/s" and not text)
    full = trained["bbqrec"]["losses"]
    assert min(abs(full[f"loss/{name}"]) for name in ("recon", "rq", "rec", "mim")) > 0
    assert trained["bbqrec/no-mim"]["losses"]["loss/mim"] == 0 == trained["bbqrec/no-rec"]["losses"]["loss/rec"]


def test_width_of_the_codes(trained, tiny_dataset):
    for method, components in {
        "bbqrec": 3,
        "bbqrec/no-rec": 2,
        "bbqrec/no-id": 2,
        "bbqrec/no-text": 2,
        "tiger": 1,
    }.items():
        codes = trained[method]["codes"]
        assert codes.codes.shape == (tiny_dataset.num_items, 3, components)
        assert codes.vectors.shape == (tiny_dataset.num_items, components * 8)
    shared, apart = trained["bbqrec"]["codes"].codebooks, trained["bbqrec/no-u"]["codes"].codebooks
    assert (shared == shared[:, :1]).all() and (apart[:, 0] != apart[:, 1]).any()


def test_tiger_tells_all_items_apart(trained, tiny_dataset):
    run = small_run("tiger", tiny_dataset)
    ids = semantic_ids(trained["tiger"]["codes"], run.recommender, tiny_dataset)
    assert ids.shape[1:] == (4, 1) and len(np.unique(ids, axis=0)) == tiny_dataset.num_items


def test_letter_tells_items_apart_without_a_further_level(trained, tiny_dataset):
    codes, run = trained["letter"]["codes"], small_run("letter", tiny_dataset)
    ids = semantic_ids(codes, run.recommender, tiny_dataset)
    assert ids.shape[1:] == (4, 1) and len(np.unique(ids, axis=0)) == tiny_dataset.num_items
    assert len(np.unique(codes.raw, axis=0)) < tiny_dataset.num_items


def test_letter_is_tiger_s_tokenizer_and_generator_with_its_own_terms(tiny_dataset):
    own, tiger = METHODS["letter"], METHODS["tiger"]
    assert (own.quantizer, own.recommender) == (LetterQuantizerConfig(), LetterRecommenderConfig())
    assert own.quantizer.rq_vae == replace(tiger.quantizer, levels=4)
    fields = {f.name for f in dataclasses.fields(RecommenderConfig)} - {"disambiguate"}
    assert all(getattr(own.recommender, name) == getattr(tiger.recommender, name) for name in fields)
    for profile in PROFILES:
        pair = [run_config(method, tiny_dataset, 0, profile).recommender for method in ("letter", "tiger")]
        assert all(getattr(pair[0], name) == getattr(pair[1], name) for name in fields)


def test_a_teacher_is_the_run_of_its_own_method(tiny_dataset):
    """With those of the overrides that it has; those that it alone has are not the taught method's."""
    overrides = {"recommender.epochs": 3, "quantizer.epochs": 2, "recommender.layers": 1, "recommender.beam": 9}
    taught = run_config("letter", tiny_dataset, 4, "small", overrides)
    own = {path: value for path, value in overrides.items() if has_field("sasrec", path)}
    assert taught.teacher == run_config("sasrec", tiny_dataset, 4, "small", own)
    assert (taught.teacher.recommender.layers, taught.teacher.recommender.epochs) == (1, 3)
    assert (taught.quantizer.epochs, taught.recommender.epochs, taught.recommender.beam) == (2, 3, 9)
    assert run_from_json(json.loads(json.dumps(taught.described()))) == taught
    with pytest.raises(InputError, match="layesr"):
        run_config("letter", tiny_dataset, 4, "small", {"recommender.layesr": 1})


def test_variant_e_starts_from_its_codebook_and_the_full_model_does_not(trained, tiny_dataset):
    codes = trained["bbqrec/e"]["codes"]
    for method in ("bbqrec/e", "bbqrec"):
        config = replace(small_run(method, tiny_dataset).recommender, d_model=8)
        tables = build_recommender(config, codes, tiny_dataset, 3).embedding.tables.detach().numpy()
        assert np.array_equal(tables, codes.codebooks) == (method == "bbqrec/e")


def test_variants_differ_from_the_full_model_as_the_paper_says():
    """Exactly these fields, whatever the defaults are."""
    expected = {
        "bbqrec/no-mim": {"disentangle": False},
        "bbqrec/no-rec": {"contrastive": False, "components": ("text", "image")},
        "bbqrec/no-u": {"shared": False},
        "bbqrec/no-id": {"components": ("text", "image")},
        "bbqrec/no-text": {"components": ("id", "image")},
        "bbqrec/no-image": {"components": ("id", "text")},
        "bbqrec/s": {"similarity": False},
        "bbqrec/e": {"inherit_codebook": True},
        "tiger": {
            "components": ("text",), "disentangle": False, "contrastive": False, "similarity": False,
            "disambiguate": True, "unquantized_share": 0.0,
        },
    }  # fmt: skip
    assert set(METHODS) >= {"bbqrec", *expected}
    assert FULL.quantizer == QuantizerConfig() and FULL.recommender == RecommenderConfig()
    for method, fields in expected.items():
        own = METHODS[method]
        for config, base in ((own.quantizer, FULL.quantizer), (own.recommender, FULL.recommender)):
            mine = {name: value for name, value in fields.items() if hasattr(base, name)}
            assert config == replace(base, **mine)
    labels = [m.label for m in METHODS.values()]
    assert len(set(labels)) == len(labels)
    assert {"BBQRec", "w/o MIM", "w/o Rec", "w/o U", "S", "E", "w/o ID", "w/o text", "w/o image"} <= set(labels)


def test_a_data_set_without_images_makes_equal_runs_of_full_and_without_image(tiny_dataset):
    bare = replace(tiny_dataset, features={"text": tiny_dataset.features["text"]})
    full, without = (run_config(m, bare, 1, "tiny") for m in ("bbqrec", "bbqrec/no-image"))
    assert full == without and full.quantizer.components == ("id", "text")
    zeros = np.zeros_like(tiny_dataset.features["image"].values)
    nobody = Features(values=zeros, present=np.zeros(len(zeros), dtype=bool))
    empty = replace(tiny_dataset, features={"text": tiny_dataset.features["text"], "image": nobody})
    assert run_config("bbqrec", empty, 1, "tiny").quantizer.components == ("id", "text")
    for method in ("tiger", "letter"):
        with pytest.raises(InputError, match=f"{method} needs text features"):
            run_config(method, replace(tiny_dataset, features={}), 1)


def test_an_override_that_does_not_suit_what_is_left_of_the_components(tiny_dataset):
    """3 heads divide 3 x 5 of text, image and ID, but not 2 x 5."""
    bare = replace(tiny_dataset, features={"text": tiny_dataset.features["text"]})
    overrides = {"quantizer.width": 5, "quantizer.sequence_heads": 3}
    assert run_config("bbqrec", tiny_dataset, 1, "tiny", overrides).quantizer.vector_width == 15
    said = r"data set tiny has no image: sequence_heads=3 must divide the width of v, 10"
    with pytest.raises(InputError, match=said):
        run_config("bbqrec", bare, 1, "tiny", overrides)


def test_profiles_and_overrides_reach_the_run(tiny_dataset):
    for method, profile in itertools.product(METHODS, PROFILES):
        overrides = {"quantizer.alpha": 0.5, "recommender.beam": 7} if method in CODED else {"recommender.patience": 7}
        run = run_config(method, tiny_dataset, 5, profile, overrides)
        assert (run.seed, run.fingerprint, run.dataset) == (5, tiny_dataset.fingerprint, tiny_dataset.name)
        for changes in (METHODS[method].profiles[profile], overrides):
            for path, value in changes.items():
                stage, _, field = path.partition(".")
                assert getattr(getattr(run, stage), field) == value
    paper = run_config("bbqrec", tiny_dataset, 0, "paper")
    assert (paper.quantizer, paper.recommender) == (FULL.quantizer, FULL.recommender)
    won = run_config("bbqrec", tiny_dataset, 0, "tiny", {"quantizer.codes": 5})  # an override beats the profile
    assert won.quantizer.codes == 5


def test_an_override_that_a_method_must_not_lose(tiny_dataset):
    """w/o text stays without text when a study overrides the sizes."""
    assert run_config("bbqrec/no-text", tiny_dataset, 0, "small").quantizer.components == ("id", "image")


@pytest.mark.parametrize(
    ("method", "profile", "overrides", "word"),
    [
        ("bbqrec/no-sound", "tiny", {}, "bbqrec/no-sound"),
        ("bbqrec", "huge", {}, "huge"),
        ("bbqrec", "tiny", {"quantizer.levles": 3}, "levles"),
        ("bbqrec", "tiny", {"seed": 7}, "override seed=7 names no field of a stage"),
        ("bbqrec", "tiny", {"dataset": "toys"}, "dataset='toys'"),
        ("bbqrec", "tiny", {"fingerprint": "f"}, r"quantizer\.FIELD=VALUE or recommender\.FIELD=VALUE"),
        ("bbqrec", "tiny", {"quantizer": 3}, "override quantizer=3"),
        ("bbqrec/no-rec", "tiny", {"quantizer.components": "id"}, "nothing to learn from"),
    ],
)
def test_bad_names_are_bad_input(tiny_dataset, method, profile, overrides, word):
    with pytest.raises(InputError, match=word):
        run_config(method, tiny_dataset, 0, profile, overrides)


def test_keys_of_stage_one_are_shared_where_the_paper_shares_them(tiny_dataset):
    keys = {m: small_run(m, tiny_dataset).quantizer_key for m in CODED}
    assert keys["bbqrec"] == keys["bbqrec/s"] == keys["bbqrec/e"]
    assert len(set(keys.values())) == len(CODED) - 2
    assert len({small_run(m, tiny_dataset).recommender_key for m in CODED}) == len(CODED)
