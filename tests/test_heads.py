"""Every head keeps the family's contract; each does what its definition says."""

import numpy as np
import pytest
from heads_examples import NearestMean

from clipnlc.fitting import cross_entropy, product_by_blocks
from clipnlc.heads import HEADS
from clipnlc.heads.base import normalise
from clipnlc.heads.linear import LinearHead
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.testing import HEAD_CHECKS, check_head

NAMES = list(HEADS)


def make(samples=60, classes=4, dim=8, *, seed=0):
    """Features around class centres that the texts miss by a little."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = random.integers(0, classes, samples)
    features = 3 * centres[labels] + 2 * random.normal(size=(samples, dim))
    return {
        "features": features.astype(np.float32),
        "labels": labels,
        "sample_id": [f"img/{i:03d}" for i in range(samples)],
        "texts": (centres + np.random.default_rng(98).normal(size=centres.shape)).astype("f"),
        "logit_scale": 20.0,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", HEAD_CHECKS, ids=lambda check: check.__name__.strip("_"))
def test_contract(check, name):
    check(HEADS.get(name))


class PlainProduct(NearestMean):
    """Its last bits depend on how many rows there are."""

    def logits(self, features):
        return normalise(features.astype(np.float32)) @ self.weight_.T * float(self.logit_scale_)


class ClaimsNoTexts(LinearHead):
    needs_texts = False


class ClaimsNoLabels(NearestMean):
    needs_labels = False


class ClaimsLabels(ZeroShotHead):
    needs_labels = True


class ClaimsViews(NearestMean):
    takes_views = True


class Forgetful(NearestMean):
    """`weight_` is not among what it says it has learnt."""

    learnt = ("bias_", "logit_scale_")


class Ordered(NearestMean):
    """Learns from the first rows it is given."""

    def fit(self, *, features, labels, sample_id, **more):
        return super().fit(
            features=features[:30], labels=labels[:30], sample_id=sample_id[:30], **more
        )


class Wider(NearestMean):
    @property
    def dim(self):
        return 33


class TestSuite:
    """The conformance suite passes a foreign head that keeps the contract, and no other."""

    def test_passes_a_head_that_needs_no_texts(self):
        check_head(NearestMean)

    @pytest.mark.parametrize(
        ("cls", "message"),
        [
            (PlainProduct, "logits of blocks of 1"),
            (ClaimsNoTexts, "zero-size array"),
            (ClaimsNoLabels, "learnt without rows"),
            (ClaimsLabels, "other labels teach it nothing else"),
            (ClaimsViews, "whether other views teach it"),
            (Forgetful, "has no attribute 'weight_'"),
            (Wider, "the width of the features"),
            (Ordered, "learnt from rows in another order"),
        ],
    )
    def test_refuses_a_head_that_breaks_it(self, cls, message):
        with pytest.raises((AssertionError, AttributeError, ValueError), match=message):
            check_head(cls)


class TestProductByBlocks:
    @pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 1100])
    def test_is_the_product(self, rows):
        random = np.random.default_rng(rows)
        left = random.normal(size=(rows, 33)).astype(np.float32)
        right = random.normal(size=(33, 7)).astype(np.float32)
        found = product_by_blocks(left, right)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, left.astype(float) @ right, rtol=1e-5, atol=1e-5)


class TestZeroShot:
    def test_equals_its_definition(self):
        given = make()
        f, t = given["features"].astype(float), given["texts"].astype(float)
        cosines = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in t] for x in f]
        head = ZeroShotHead().fit_to_texts(texts=given["texts"], logit_scale=20.0, logit_bias=-1.0)
        logits = head.logits(given["features"])
        np.testing.assert_allclose(logits, 20 * np.array(cosines) - 1, rtol=1e-4, atol=1e-5)


class TestLinear:
    def test_starts_at_the_texts(self):
        given = make() | {"logit_bias": -2.0}
        np.testing.assert_allclose(
            LinearHead(epochs=0).fit(**given).logits(given["features"]),
            ZeroShotHead().fit(**given).logits(given["features"]),
            rtol=1e-6,
        )

    def test_training_equals_autograd(self):
        """Torch's automatic derivatives and its Adam go the same way."""
        import torch  # noqa: PLC0415

        given = make()
        head = LinearHead(epochs=30, batch_size=60, learning_rate=1e-3).fit(**given)
        unit = torch.nn.functional.normalize(torch.tensor(given["features"]).double())
        weight = torch.nn.functional.normalize(torch.tensor(given["texts"]).double())
        weight.requires_grad_()
        bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([weight, bias], lr=1e-3)
        for _ in range(30):
            optimiser.zero_grad()
            logits = 20 * unit @ weight.T + bias
            torch.nn.functional.cross_entropy(logits, torch.tensor(given["labels"])).backward()
            optimiser.step()
        np.testing.assert_allclose(head.weight_, weight.detach().numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(head.bias_, bias.detach().numpy(), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("stopping_share", [0.0, 0.25])
    def test_torch_takes_the_same_steps(self, stopping_share):
        """The same minibatches, the last one smaller; as many epochs where training stops early."""
        settings = {"epochs": 40, "learning_rate": 0.02, "batch_size": 16, "patience": 5}
        given = make() | {"logit_bias": -2.0}
        found = [
            LinearHead(**settings, stopping_share=stopping_share, device=device).fit(**given)
            for device in ("", "cpu", "cpu")
        ]
        ours, torch, again = (head.state() for head in found)
        assert ours["epochs_"] == torch["epochs_"] > 0
        assert np.abs(ours["weight_"] - normalise(given["texts"])).max() > 0.05
        assert torch["weight_"].dtype == torch["bias_"].dtype == np.float32
        for name in ("weight_", "bias_"):
            np.testing.assert_allclose(torch[name], ours[name], atol=1e-4)
            np.testing.assert_array_equal(torch[name], again[name])

    def test_learns_more_than_the_texts_knew(self):
        test = make(500, seed=1)
        before, after = (
            cross_entropy(
                LinearHead(epochs=epochs, learning_rate=1e-3)
                .fit(**make(300))
                .logits(test["features"]),
                test["labels"],
            )
            for epochs in (0, 60)
        )
        assert after < before

    def test_stops_early_with_the_weights_of_the_best_epoch(self):
        settings = {"epochs": 400, "learning_rate": 0.02, "patience": 5}
        head = LinearHead(**settings, stopping_share=0.25).fit(**make())
        assert 0 < int(head.epochs_) < 400
        shorter = {**settings, "epochs": int(head.epochs_)}
        again = LinearHead(**shorter, stopping_share=0.25).fit(**make())
        np.testing.assert_array_equal(again.weight_, head.weight_)

    def test_stopping_gives_the_texts_back_where_training_only_harms(self):
        given = make()
        wrong = given | {"labels": np.random.default_rng(1).integers(0, 4, 60)}
        wrong["texts"] = np.zeros_like(
            given["texts"]
        )  # uniform: nothing beats it on noise for long
        head = LinearHead(epochs=50, learning_rate=10.0, stopping_share=0.3).fit(**wrong)
        assert int(head.epochs_) == 0
        assert not head.weight_.any()

    def test_without_a_stopping_share_every_epoch_is_run(self):
        assert int(LinearHead(epochs=7).fit(**make()).epochs_) == 7

    def test_what_it_learnt_answers_without_its_settings(self):
        """Version 1 of the stores named no settings."""
        given = make()
        head = LinearHead(epochs=7).fit(**given)
        again = LinearHead.rebuild({}, head.state())
        np.testing.assert_array_equal(
            again.logits(given["features"]), head.logits(given["features"])
        )
