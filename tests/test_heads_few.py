"""RLA and Tip-Adapter against references that share no code with them, and by hand."""

import numpy as np
import pytest
import torch

from clipnlc.fitting import Adam
from clipnlc.heads.cross_fitting import folds_of
from clipnlc.heads.rla import RegularisedLinearAdapter
from clipnlc.heads.tip_adapter import ALPHAS, BETAS, DEFAULT, TipAdapter, TipAdapterF
from clipnlc.heads.zero_shot import ZeroShotHead


def rows(samples, *, classes=4, dim=8, seed=0):
    """Rows that are not k of every class, and texts with a bias."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, dim))
    labels = random.integers(0, classes, samples)
    return {
        "features": (2 * centres[labels] + random.normal(size=(samples, dim))).astype("f"),
        "labels": labels,
        "sample_id": [f"{i:03}" for i in range(samples)],
        "texts": (centres + random.normal(size=centres.shape)).astype("f"),
        "logit_scale": 20.0,
        "logit_bias": -1.5,
    }


def unit(array):
    return torch.nn.functional.normalize(torch.tensor(array).double())


class TestRegularisedLinearAdapter:
    @pytest.mark.parametrize(("samples", "seed"), [(3, 0), (16, 1), (60, 2)])
    def test_equals_automatic_derivatives(self, samples, seed):
        """Torch's derivatives, Adam and schedule, in float64."""
        given = rows(samples, seed=seed)
        head = RegularisedLinearAdapter(steps=100).fit(**given)
        features, texts = unit(given["features"]), unit(given["texts"])
        truth = torch.tensor(given["labels"])
        adapter = torch.eye(8, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([adapter], lr=1e-3, eps=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=100)

        def answer(images):
            return 20 * torch.nn.functional.normalize(images @ adapter.T) @ texts.T - 1.5

        for _ in range(100):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(answer(features), truth)
            shots = samples / 4
            (loss + ((adapter - torch.eye(8)) ** 2).sum() / shots).backward()
            optimiser.step()
            schedule.step()
        moved = adapter.detach().numpy()
        assert np.abs(moved - np.eye(8)).max() > 1e-3
        np.testing.assert_allclose(head.adapter_, moved, atol=2e-5)
        images = rows(30, seed=seed + 10)["features"]
        expected = answer(unit(images)).detach().numpy()
        np.testing.assert_allclose(head.logits(images), expected, atol=2e-3)

    def test_one_step_by_hand(self):
        """One image of class 0 along (0.6, 0.8), texts along the axes, scale ln(2)/0.2.

        z_1 - z_0 = ln 2, so p = (1/3, 2/3) and dz = (-2/3, 2/3). With u = (0.6, 0.8) the part of
        (-2/3, 2/3) s across u is (-0.8, 0.6) s 14/15, and dW = (-0.8, 0.6)^T (0.6, 0.8) s 14/15. The
        first step of Adam moves every weight by the learning rate, against its sign.
        """
        head = RegularisedLinearAdapter(steps=1, learning_rate=0.01).fit(
            features=np.array([[3.0, 4.0]], dtype="f"),
            labels=np.array([0]),
            sample_id=["a"],
            texts=np.eye(2, dtype="f"),
            logit_scale=float(np.log(2) / 0.2),
        )
        expected = np.array([[1.01, 0.01], [-0.01, 0.99]])
        np.testing.assert_allclose(head.adapter_, expected, atol=1e-5)

    def test_no_step_is_zero_shot(self):
        given = rows(12)
        np.testing.assert_allclose(
            RegularisedLinearAdapter(steps=0).fit(**given).logits(given["features"]),
            ZeroShotHead().fit(**given).logits(given["features"]),
            rtol=1e-5,
            atol=1e-5,
        )


def tip_adapter(image, given, views, alpha, beta, *, without=()):
    """The formula, one image and one key at a time, in float64."""
    f = image / np.linalg.norm(image)
    logits = [20 * f @ t / np.linalg.norm(t) - 1.5 for t in given["texts"].astype(float)]
    for number, key in enumerate(views.astype(float)):
        if number not in without:
            cosine = f @ key / np.linalg.norm(key)
            logits[given["labels"][number]] += alpha * np.exp(-beta * (1 - cosine))
    return np.array(logits)


class TestTipAdapter:
    @pytest.mark.parametrize(("samples", "seed", "crops"), [(9, 0, False), (40, 1, True)])
    def test_equals_its_formula_and_the_search_over_folds(self, samples, seed, crops):
        given = rows(samples, seed=seed)
        noise = np.random.default_rng(seed).normal(size=given["features"].shape)
        views = given["features"] + noise.astype("f") if crops else given["features"]
        head = TipAdapter().fit(**given, views=views if crops else None)
        images, labels = given["features"].astype(float), given["labels"]
        fold = folds_of(labels, given["sample_id"])
        judged = [
            row
            for row in range(samples)
            if any(
                labels[row] == labels[other] and fold[row] != fold[other]
                for other in range(samples)
            )
        ]
        assert len(judged) > 0
        losses = {}
        for alpha in ALPHAS:
            for beta in BETAS:
                loss = 0.0
                for row in judged:
                    z = tip_adapter(
                        images[row],
                        given,
                        views,
                        alpha,
                        beta,
                        without=np.flatnonzero(fold == fold[row]),
                    )
                    loss += np.log(np.exp(z - z.max()).sum()) + z.max() - z[labels[row]]
                losses[alpha, beta] = loss / len(judged)
        assert (float(head.alpha_), float(head.beta_)) == min(losses, key=losses.get)
        assert head.facts() == {"alpha": float(head.alpha_), "beta": float(head.beta_)}
        test = rows(20, seed=seed + 10)["features"]
        expected = [
            tip_adapter(image, given, views, float(head.alpha_), float(head.beta_))
            for image in test.astype(float)
        ]
        np.testing.assert_allclose(head.logits(test), expected, rtol=1e-4, atol=1e-4)

    def test_by_hand(self):
        """One image of each of two classes along the axes, texts alike: alpha 1, beta 5.5.

        An image along the first axis: 1 for class 0, exp(-5.5 (1 - 0)) for class 1.
        """
        head = TipAdapter().fit(
            features=np.array([[2.0, 0.0], [0.0, 5.0]], dtype="f"),
            labels=np.array([0, 1]),
            sample_id=["a", "b"],
            texts=np.array([[1.0, 1.0], [1.0, 1.0]], dtype="f"),
            logit_scale=np.sqrt(2),
        )
        assert (float(head.alpha_), float(head.beta_)) == DEFAULT == (1.0, 5.5)
        found = head.logits(np.array([[7.0, 0.0]], dtype="f"))
        np.testing.assert_allclose(found, [[2.0, 1 + np.exp(-5.5)]], rtol=1e-6)

    def test_many_images_in_blocks(self):
        given = rows(600)
        head = TipAdapter().fit(**given)
        test = rows(1100, seed=1)["features"]
        some = [0, 511, 512, 1099]
        expected = [
            tip_adapter(
                test[i].astype(float),
                given,
                given["features"],
                float(head.alpha_),
                float(head.beta_),
            )
            for i in some
        ]
        np.testing.assert_allclose(head.logits(test)[some], expected, rtol=1e-4, atol=1e-3)


class TestTipAdapterF:
    @pytest.mark.parametrize(("samples", "seed"), [(5, 0), (30, 1)])
    def test_training_equals_automatic_derivatives(self, samples, seed):
        """Torch's derivatives, AdamW and schedule, in float64; a single batch has no order."""
        given = rows(samples, seed=seed)
        head = TipAdapterF(epochs=15).fit(**given)
        alpha, beta = float(head.alpha_), float(head.beta_)
        features, texts = unit(given["features"]), unit(given["texts"])
        values = torch.nn.functional.one_hot(torch.tensor(given["labels"]), 4).double()
        keys = features.clone().requires_grad_()
        optimiser = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=15)
        for _ in range(15):
            optimiser.zero_grad()
            cache = (-beta * (1 - features @ keys.T)).exp() @ values
            logits = 20 * features @ texts.T - 1.5 + alpha * cache
            torch.nn.functional.cross_entropy(logits, torch.tensor(given["labels"])).backward()
            optimiser.step()
            schedule.step()
        moved = keys.detach().numpy()
        assert np.abs(moved - features.numpy()).max() > 1e-3
        np.testing.assert_allclose(head.keys_, moved, atol=2e-5)

    def test_no_epoch_is_tip_adapter(self):
        given, test = rows(30), rows(9, seed=1)["features"]
        one, other = TipAdapterF(epochs=0).fit(**given), TipAdapter().fit(**given)
        np.testing.assert_array_equal(one.logits(test), other.logits(test))

    def test_batches_follow_the_seed(self):
        given = rows(30)
        one, again, other = (
            TipAdapterF(epochs=2, batch_size=8, seed=seed).fit(**given).keys_ for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)


def test_adam_in_parts_moves_the_same_bits(monkeypatch):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=(5, 7)), random.normal(size=(3, 5, 7))
    found = []
    for cells in (1000, 4):
        monkeypatch.setattr("clipnlc.fitting._ADAM_CELLS", cells)
        weight = start.astype(np.float32)
        adam = Adam([weight], learning_rate=0.1, weight_decay=0.01, epsilon=1e-4)
        for gradient in gradients.astype(np.float32):
            adam.step([gradient])
        found.append(weight)
    np.testing.assert_array_equal(*found)
