"""CLAP, GDA and LP++ against references that share no code with them, and by hand."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from test_heads_few import rows, unit

from clipnlc.heads.clap import ClassAdaptiveProbe
from clipnlc.heads.cross_fitting import folds_of
from clipnlc.heads.gda import ALPHAS, DEFAULT, GaussianDiscriminant
from clipnlc.heads.lp_plus_plus import LinearProbePlusPlus

CASES = pytest.mark.parametrize(("samples", "seed"), [(3, 0), (16, 1), (60, 2)])


def two_axes(**more):
    """One image of each of two classes, whose texts lie across them."""
    return {
        "features": np.array([[2.0, 0.0], [0.0, 3.0]], dtype="f"),
        "labels": np.array([0, 1]),
        "sample_id": ["a", "b"],
        "texts": np.array([[0.6, 0.8], [0.8, 0.6]], dtype="f"),
        "logit_scale": 1.0,
        **more,
    }


class TestClap:
    @CASES
    def test_equals_automatic_derivatives(self, samples, seed):
        """Torch's derivatives, momentum and schedule, in float64; one batch, so in any order."""
        given = rows(samples, seed=seed)
        head = ClassAdaptiveProbe(epochs=30, learning_rate=0.05, text_length=3.0).fit(**given)
        features, start = unit(given["features"]), 3 * unit(given["texts"])
        truth = torch.tensor(given["labels"])
        probability = torch.softmax(20 * features @ start.T / 3, dim=1)
        right = [probability[truth == c, c] for c in range(4)]
        known = torch.stack([one.mean() for one in right if len(one)])
        trust = torch.stack([one.mean() if len(one) else known.mean() for one in right])
        weight = start.clone().requires_grad_()
        optimiser = torch.optim.SGD([weight], lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=30)

        def answer(images):
            return 20 * images @ torch.nn.functional.normalize(weight).T - 1.5

        for epoch in range(30):
            if epoch == 0:
                optimiser.param_groups[0]["lr"] = 1e-5
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(answer(features), truth)
            (loss + (trust * ((weight - start) ** 2).sum(1)).mean()).backward()
            optimiser.step()
            if epoch == 0:
                optimiser.param_groups[0]["lr"] = 0.05
            else:
                schedule.step()
        assert (weight - start).abs().max() > 0.01
        images = rows(30, seed=seed + 10)["features"]
        expected = answer(unit(images)).detach().numpy()
        np.testing.assert_allclose(head.logits(images), expected, atol=2e-3)

    def test_a_step_by_hand(self):
        """The gradient across the text (0.6, 0.8): of p = 1/(1 + e^0.2) it is (-0.64, 0.48) p."""
        head = ClassAdaptiveProbe(epochs=1, text_length=1.0).fit(**two_axes())
        p = 1 / (1 + np.exp(-0.2))
        # Rows (1, 0) of class 0 and (0, 1) of class 1; p is what the wrong class gets in both.
        by_rows = np.array([-p / 2, p / 2])
        across = by_rows - (by_rows @ [0.6, 0.8]) * np.array([0.6, 0.8])
        moved = np.array([0.6, 0.8]) - 1e-5 * across
        np.testing.assert_allclose(head.weight_[0], moved / np.linalg.norm(moved), atol=1e-7)

    def test_batches_follow_the_seed(self):
        given = rows(60)
        found = [
            ClassAdaptiveProbe(epochs=2, batch_size=16, seed=s).fit(**given).weight_
            for s in (0, 0, 1)
        ]
        np.testing.assert_array_equal(found[0], found[1])
        assert np.abs(found[0] - found[2]).max() > 0


def gaussian_logits(features, labels, images, classes=4):
    """The formula in float64, row by row, with scipy's pseudo-inverse; as published but for alpha."""
    dim, count = features.shape[1], len(features)
    present = [c for c in range(classes) if (labels == c).any()]
    means = {c: features[labels == c].mean(axis=0) for c in present}
    rest = np.mean([means[c] for c in present], axis=0)
    spread = sum(
        np.outer(f - means[c], f - means[c]) for f, c in zip(features, labels, strict=True)
    )
    spread = spread / (count - 1) if count > 1 else spread
    inverse = dim * np.linalg.pinv((count - 1) * spread + np.trace(spread) * np.eye(dim))
    found = np.empty((len(images), classes))
    for c in range(classes):
        mean = means.get(c, rest)
        found[:, c] = images @ inverse @ mean - np.log(classes) - mean @ inverse @ mean / 2
    return found


class TestGda:
    @pytest.mark.parametrize(("samples", "seed"), [(9, 0), (24, 1), (60, 2)])
    def test_equals_its_formula_and_the_search_over_folds(self, samples, seed):
        given = rows(samples, seed=seed)
        head = GaussianDiscriminant().fit(**given)
        features, texts = unit(given["features"]).numpy(), unit(given["texts"]).numpy()
        labels = given["labels"]
        fold = folds_of(labels, given["sample_id"], number=5, seed=0)
        zero_shot = 20 * features @ texts.T
        judged, crossed = [], np.empty_like(zero_shot)
        for row in range(samples):
            kept = fold != fold[row]
            crossed[row] = gaussian_logits(features[kept], labels[kept], features[[row]])[0]
            if labels[row] in labels[kept]:
                judged.append(row)
        losses = [
            -log_softmax(zero_shot + alpha * crossed, axis=1)[judged, labels[judged]].mean()
            for alpha in ALPHAS
        ]
        assert float(head.alpha_) == ALPHAS[int(np.argmin(losses))]
        images = rows(30, seed=seed + 10)["features"]
        found = unit(images).numpy()
        expected = 20 * found @ texts.T - 1.5
        expected += float(head.alpha_) * gaussian_logits(features, labels, found)
        assert np.abs(expected - (20 * found @ texts.T - 1.5)).max() > 0.1
        np.testing.assert_allclose(head.logits(images), expected, rtol=1e-4, atol=2e-3)

    def test_one_label_of_each_class_has_no_spread(self):
        head = GaussianDiscriminant().fit(**two_axes())
        assert head.facts() == {"alpha": DEFAULT}
        expected = np.array([[0.6, 0.8]]) + DEFAULT * np.log(1 / 2)
        np.testing.assert_allclose(head.logits(np.array([[5.0, 0.0]])), expected, atol=1e-6)

    def test_two_of_each_class_by_hand(self):
        """Features of length 1 at +-30 degrees around each axis: spread 1/4 across, and so on."""
        long, short = np.sqrt(3) / 2, 0.5
        features = np.array([[long, short], [long, -short], [short, long], [-short, long]])
        given = two_axes(features=features.astype("f"), labels=np.array([0, 0, 1, 1]))
        head = GaussianDiscriminant().fit(**given | {"sample_id": list("abcd")})
        # Around the means (long, 0) and (0, long), the sums of squares are 1/2 in either direction;
        # (n - 1) S is half the unit matrix, tr(S) = 1/3, so S^-1 = 2 / (1/2 + 1/3) = 2.4.
        gain = 2.4 * long
        bias = np.log(1 / 2) - 2.4 * long**2 / 2
        alpha = float(head.alpha_)
        expected = [0.6 + alpha * (gain + bias), 0.8 + alpha * bias]
        np.testing.assert_allclose(head.logits(np.array([[4.0, 0.0]]))[0], expected, rtol=1e-5)


class TestLinearProbePlusPlus:
    @CASES
    def test_equals_automatic_derivatives(self, samples, seed):
        given = rows(samples, seed=seed)
        head = LinearProbePlusPlus(epochs=40).fit(**given)
        features, texts = unit(given["features"]), unit(given["texts"])
        truth = torch.tensor(given["labels"])
        cosines = features @ texts.T
        own = [cosines[truth == c, c].mean() for c in range(4) if (truth == c).any()]
        one_hot = torch.nn.functional.one_hot(truth, 4).double()
        weight = (one_hot.T @ features).clone().requires_grad_()
        alpha = torch.full((4,), 250 * float(torch.stack(own).mean()), dtype=torch.float64)
        alpha.requires_grad_()
        largest = torch.linalg.matrix_norm(features, 2) ** 2
        by_weight = torch.optim.SGD([weight], lr=float(4 * samples / largest), momentum=0.9)
        step = float(samples / (4 * (cosines**2).sum(0).max()))
        for epoch in range(1, 41):
            by_weight.zero_grad()
            alpha.grad = None
            logits = features @ weight.T + alpha * cosines
            torch.nn.functional.cross_entropy(logits, truth).backward()
            by_weight.step()
            if epoch % 10 == 0:
                with torch.no_grad():
                    alpha -= step * alpha.grad
        images = unit(rows(30, seed=seed + 10)["features"])
        expected = (images @ weight.T + alpha * (images @ texts.T) - 1.5).detach().numpy()
        found = head.logits(rows(30, seed=seed + 10)["features"])
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=5e-3)

    def test_no_epoch_is_the_start_by_hand(self):
        """Both mean cosines are 0.6, so alpha is 150; each class starts at its only image."""
        head = LinearProbePlusPlus(epochs=0).fit(**two_axes())
        np.testing.assert_allclose(head.alpha_, 150, rtol=1e-6)
        expected = [1 + 150 * 0.6, 150 * 0.8]
        np.testing.assert_allclose(head.logits(np.array([[2.0, 0.0]]))[0], expected, rtol=1e-6)

    def test_a_step_by_hand(self):
        """F'F is the unit matrix, so the step is 8; rows are 1 and 150 x 0.2 below the other class."""
        head = LinearProbePlusPlus(epochs=1).fit(**two_axes())
        wrong = 1 / (1 + np.exp(1 - 30.0))  # the probability of the other class
        moved = np.array([[1 + 8 * wrong / 2, -8 * wrong / 2], [-8 * wrong / 2, 1 + 8 * wrong / 2]])
        expected = np.array([2.0, 1.0]) @ moved.T / 5**0.5
        expected += 150 * np.array([0.6 * 2 + 0.8, 0.8 * 2 + 0.6]) / 5**0.5
        np.testing.assert_allclose(head.logits(np.array([[2.0, 1.0]]))[0], expected, rtol=1e-6)
