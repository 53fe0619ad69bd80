"""RLA and Tip-Adapter against references that share no code with them, and by hand."""

import numpy as np
import pytest
import torch

from clipnlc.fitting import Adam
from clipnlc.heads.rla import RegularisedLinearAdapter
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
