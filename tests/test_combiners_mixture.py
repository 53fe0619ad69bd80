"""MoE against torch's autograd, and by hand."""

import numpy as np
import pytest
import torch

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.mixture import MixtureOfExperts
from clipnlc.ensemble import Ensemble
from clipnlc.testing.combiners import example


def by_torch(ensemble, labels, test, *, epochs, learning_rate, batch_size):
    """Train the same mixture with autograd and torch's Adam, in float64."""
    ensemble, test = ensemble.canonical(), test.canonical()
    labels = torch.tensor(ensemble.labels(labels))
    widths = [f.shape[1] for f in ensemble.ensemble.features]
    classes = ensemble.ensemble.logits.shape[2]
    experts = [torch.zeros(w, classes, dtype=torch.float64, requires_grad=True) for w in widths]
    biases = [torch.zeros(classes, dtype=torch.float64, requires_grad=True) for _ in widths]
    gate = torch.nn.Linear(sum(widths), len(widths), dtype=torch.float64)
    for parameter in gate.parameters():
        torch.nn.init.zeros_(parameter)

    def probabilities(one, rows):
        units = [
            torch.nn.functional.normalize(torch.tensor(f[rows], dtype=torch.float64))
            for f in one.features
        ]
        weights = torch.softmax(gate(torch.cat(units, dim=1)), dim=1)
        total = 0.0
        for b, unit in enumerate(units):
            head = torch.tensor(one.logits[b][rows], dtype=torch.float64)
            own = torch.softmax(head + 100 * unit @ experts[b] + biases[b], dim=1)
            total = total + weights[:, b, None] * own
        return total

    adam = torch.optim.Adam([*experts, *biases, *gate.parameters()], lr=learning_rate)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        order = random.permutation(len(labels))
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            adam.zero_grad()
            found = probabilities(ensemble.ensemble, rows)
            torch.nn.functional.nll_loss(torch.log(found), labels[rows]).backward()
            adam.step()
    with torch.no_grad():
        found = probabilities(test.ensemble, np.arange(len(test.ensemble.sample_id)))
    answer = np.empty(found.shape)
    answer[:, test.classes] = found.numpy()
    return answer


@pytest.mark.parametrize(
    ("samples", "classes", "backbones", "batch", "rate"),
    [(40, 5, 4, 256, 2e-5), (33, 3, 2, 8, 1e-3), (6, 5, 1, 4, 1e-2)],
)
def test_it_is_what_autograd_finds(samples, classes, backbones, batch, rate):
    settings = {"epochs": 20, "learning_rate": rate, "batch_size": batch}
    ensemble, labels = example(samples, classes, backbones, seed=5)
    test = example(17, classes, backbones, seed=6)[0]
    found = MixtureOfExperts(**settings).fit(ensemble, labels).combine(test)
    expected = by_torch(ensemble, labels, test, **settings)
    np.testing.assert_allclose(np.exp(found), expected, rtol=2e-3, atol=1e-5)


def test_its_scores_are_the_mixture_worked_by_hand():
    """Two experts, two classes, one number each: all factors are logarithms of small numbers."""
    log = np.log
    logits = np.array([[[log(3), 0.0]], [[0.0, 0.0]]], dtype=np.float32)
    ensemble = Ensemble(
        logits, (np.array([[2.0]], np.float32), np.array([[5.0]], np.float32)), ("a",)
    )
    fitted = MixtureOfExperts(expert_scale=1.0).load_state(
        {
            # The second expert: logits (0, log 4), so probabilities 1/5 and 4/5.
            "expert_weight_": np.array([[0.0, 0.0], [0.0, log(2)]], dtype=np.float32),
            "expert_bias_": np.array([[0.0, 0.0], [0.0, log(2)]], dtype=np.float32),
            # The gate: (log 3, 0), so 3/4 for the first expert, whose probabilities are 3/4 and 1/4.
            "gate_weight_": np.array([[log(3), 0.0], [0.0, 0.0]], dtype=np.float32),
            "gate_bias_": np.zeros(2, dtype=np.float32),
        }
    )
    expected = [3 / 4 * 3 / 4 + 1 / 4 * 1 / 5, 3 / 4 * 1 / 4 + 1 / 4 * 4 / 5]
    np.testing.assert_allclose(np.exp(fitted.combine(ensemble)), [expected], rtol=1e-6)
    own = fitted.explain(ensemble, np.array([0])).share
    margins = np.array([3 / 4 * (3 / 4 - 1 / 4), 1 / 4 * (1 / 5 - 4 / 5)])
    np.testing.assert_allclose(own, margins / margins.sum(), rtol=1e-6)


def test_without_epochs_it_is_the_mean_probability():
    ensemble, labels = example(seed=1)
    test = example(31, seed=2)[0]
    found = MixtureOfExperts(epochs=0).fit(ensemble, labels).combine(test)
    expected = COMBINERS.get("prob-avg")().combine(test)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_its_gate_learns_who_is_competent_where():
    """Two regions, in each of which one of two backbones is right and the other one wrong."""
    random = np.random.default_rng(0)
    labels, region = random.integers(0, 2, 200), random.integers(0, 2, 200)
    told = np.where(np.arange(2)[:, None] == region, labels, 1 - labels)
    logits = (4 * np.eye(2)[told]).astype(np.float32)
    features = tuple(
        (np.eye(2)[region] + 0.1 * random.normal(size=(200, 2))).astype(np.float32)
        for _ in range(2)
    )
    ensemble = Ensemble(logits, features, tuple(f"{i:03d}" for i in range(200)))
    train, test = np.arange(100), np.arange(100, 200)
    settings = {"learning_rate": 1e-2, "expert_scale": 0.0}
    fitted = MixtureOfExperts(**settings).fit(ensemble.rows(train), labels[train])
    right = fitted.combine(ensemble.rows(test)).argmax(axis=1) == labels[test]
    assert right.mean() > 0.95


def test_other_features_are_refused():
    ensemble, labels = example()
    fitted = MixtureOfExperts(epochs=1).fit(ensemble, labels)
    wider = ensemble.with_features([np.repeat(f, 2, axis=1) for f in ensemble.features])
    with pytest.raises(ValueError, match="fitted on 30 numbers and 5 classes of an image, asked"):
        fitted.combine(wider)
    with pytest.raises(ValueError, match="fitted on 4 backbones"):
        fitted.combine(example(backbones=3)[0])
