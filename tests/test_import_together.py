"""A random forest, a tower of timm, an imported one and nano-RN50 in one ensemble: from photos to the table."""

import json

import numpy as np
import pytest
import timm
import torch
from command_line import good, refusal
from PIL import Image
from safetensors.torch import save_file
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests)

import clipnlc
from clipnlc.combiners import COMBINERS
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits

pytestmark = pytest.mark.slow
RUN = "4-shots-seed-0"
TIMM = "timm-test_resnet@random"
NAMES = ("forest", "nano-RN50", TIMM, "tower")


def write_hard_photos(root):
    """Write noisy photos of three greys that no model tells apart well."""
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 25)):
        for name, colour in {
            "red": (140, 115, 110),
            "green": (112, 138, 112),
            "blue": (110, 112, 142),
        }.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shade = np.array(colour) + random.normal(0, 14, 3)
                image = (shade + random.normal(0, 60, (24, 24, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(root / split / name / f"{number:02}.png")


def pixels(root, split, ids):
    """Return photos as rows of 48 numbers: 4 x 4 pixels."""
    files = [root / split / name.removeprefix(f"{split}/") for name in ids]
    return np.stack(
        [np.asarray(Image.open(file).resize((4, 4)), np.float32).ravel() / 255 for file in files]
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Extract nano-RN50, and write what the two other models give for the same photos."""
    root = tmp_path_factory.mktemp("together")
    write_hard_photos(root / "photos")
    by = {"cwd": root}
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), root / "random.safetensors")
    good("extract", "-d", "photos", "-b", f"nano-RN50,{TIMM}.safetensors", **by)
    layout = Layout(root / "clipnlc-store")
    rows = {s: read_features(layout.features("photos", s, "nano-RN50")) for s in ("train", "test")}
    x = {split: pixels(root / "photos", split, its.sample_id) for split, its in rows.items()}
    names = np.array(rows["train"].class_names)
    forest = RandomForestClassifier(15, random_state=0)
    words = names[rows["train"].labels]
    given = {"train": cross_val_predict(forest, x["train"], words, method="predict_proba", cv=3)}
    given["test"] = forest.fit(x["train"], words).predict_proba(x["test"])
    random = np.random.default_rng(0)
    for split, its in rows.items():
        order = random.permutation(len(its.labels))
        ids = np.array(its.sample_id)[order]
        np.savez(
            root / f"forest-{split}.npz",
            predict_proba=given[split][order],
            classes=forest.classes_,
            y=names[its.labels][order],
            sample_id=ids,
        )
        np.savez(root / f"tower-{split}.npz", embeddings=x[split][order], sample_id=ids)
        for name in ("forest", "tower"):
            words = ("import", f"{name}-{split}.npz", "--backbone", name, "-d", "photos")
            good(*words, "--split", split, **by)
    auto = ("--head", "auto", "--shots", "4", "--seeds", "1")
    good("train-heads", *auto, **by)
    said = good("train-nlc", *auto, "--combiners", "all", "--workers", "1", **by)
    record = json.loads(good("evaluate", "--head", "auto", "--json", **by))
    return root, layout, said, record, given, rows


def accuracies(record):
    (found,) = record["datasets"]
    return {row["method"]: row["accuracy"] for row in found["rows"]}


def test_every_combiner_runs_or_says_why_not(here):
    _, _, said, record, *_ = here
    ran = accuracies(record)
    for name in COMBINERS:
        if COMBINERS.get(name).needs_costs:
            assert (
                f"{name} starts with the cheapest backbone, and what forest and tower cost" in said
            )
            assert name not in ran
        else:
            assert name in ran, name


def test_the_table_says_that_labels_of_a_model_are_not_known(here):
    root, *_ = here
    said = " ".join(good("evaluate", "--head", "auto", cwd=root).split())
    assert (
        "forest, tower came as arrays: what labels a model learnt from before is not known" in said
    )


def auto_logits(layout, backbone):
    return read_logits(layout.logits("photos", "auto", backbone, RUN))


def test_logits_are_those_of_plain_numpy(here):
    _, layout, _, _, given, rows = here
    found = auto_logits(layout, "forest").splits["test"]
    order = [sorted(rows["test"].class_names).index(name) for name in rows["test"].class_names]
    expected = np.log(np.maximum(given["test"], 2.0**-23))[:, order]
    np.testing.assert_allclose(found.logits, expected, rtol=1e-6)
    assert found.sample_id == rows["test"].sample_id
    np.testing.assert_array_equal(found.labels, rows["test"].labels)
    its = rows["test"]
    unit = its.features / np.linalg.norm(its.features, axis=1, keepdims=True)
    np.testing.assert_allclose(
        auto_logits(layout, "nano-RN50").splits["test"].logits,
        its.logit_scale * unit @ its.texts.T,
        rtol=1e-3,
        atol=1e-3,
    )


def test_the_table_is_that_of_plain_numpy_and_of_python(here):
    _, layout, _, record, _, rows = here
    files = {name: auto_logits(layout, name) for name in NAMES}
    ran = accuracies(record)
    truth = rows["test"].labels
    z = np.stack([files[name].splits["test"].logits for name in NAMES]).astype(np.float64)

    def right(scores):
        return pytest.approx((scores.argmax(axis=-1) == truth).mean())

    for name, one in zip(NAMES, z, strict=True):
        assert ran[name] == right(one), name
    assert ran["log-avg"] == right(z.mean(axis=0))
    assert ran["prob-avg"] == right(softmax(z, axis=2).mean(axis=0))
    sure = softmax(z, axis=2).max(axis=2).argmax(axis=0)
    assert ran["conf"] == right(z[sure, np.arange(len(truth))])

    def features(name, split):
        there = read_features(
            layout.features("photos", "test" if split == "test" else "train", name)
        )
        place = {sample: row for row, sample in enumerate(there.sample_id)}
        return there.features[[place[s] for s in files["tower"].splits[split].sample_id]]

    def ensemble(split):
        return clipnlc.ensemble_of(
            {name: its.splits[split].logits for name, its in files.items()},
            features={name: features(name, split) for name in NAMES if name != "forest"},
            sample_id=files["tower"].splits[split].sample_id,
            class_names=files["tower"].class_names,
        )

    labels = files["tower"].splits["cross-fitted"].labels
    found = clipnlc.compare(ensemble("cross-fitted"), labels, ensemble("test"), truth)
    compared = [
        row for row in found.rows
        if row.kind == "combiner" and not COMBINERS.get(row.name).reads_pool
    ]  # fmt: skip
    assert len(compared) > 15
    assert len({row.accuracy for row in found.rows}) > 5  # so that equal numbers say something
    for row in compared:
        assert row.accuracy == pytest.approx(ran[row.name]), row.name


def test_diversity_takes_imported_logits_too(here):
    root, layout, *_ = here
    refused = refusal("diversity", "--head", "auto", cwd=root)
    assert f"{TIMM}, tower on photos have neither texts nor logits" in refused
    words = ("diversity", "--head", "auto", "--backbones", "nano-RN50,forest", "--json")
    (found,) = json.loads(good(*words, cwd=root))["datasets"]
    z = [auto_logits(layout, name).splits["test"].logits for name in ("nano-RN50", "forest")]
    truth = auto_logits(layout, "forest").splits["test"].labels
    right = [one.argmax(axis=1) == truth for one in z]
    assert {*found["accuracies"]} == {right[0].mean(), right[1].mean()}
    assert found["oracle"] == (right[0] | right[1]).mean()
    assert found["matrices"]["cka"][0][1] is None  # the forest has no features


def test_what_arrays_cannot_do_is_said(here):
    root, *_ = here
    fit = ("--head", "auto", "--shots", "4", "--combiner", "c-log-avg")
    for words in (("predict", "photos/test"), ("export", "--out", "made")):
        assert "forest, tower of photos came as arrays, without a model" in refusal(
            *words, *fit, cwd=root
        )
    words = ("train-nlc", "--head", "auto", "--shots", "4", "--backbones", "forest")
    said = refusal(*words, "--combiners", "gp,probe", cwd=root)
    assert "gp reads features, and forest has logits alone" in said
