"""The Neural Logit Controller: exact relations, an independent training, adaptivity, controls."""

import numpy as np
import pytest

from clipnlc.combiners import COMBINERS, nlc
from clipnlc.combiners.controls import ConstantInput, ShuffledInput
from clipnlc.combiners.nlc import NeuralLogitController
from clipnlc.combiners.scales import PARAMETRISATIONS
from clipnlc.ensemble import Ensemble
from clipnlc.errors import UnknownNameError
from clipnlc.metrics.accuracy import accuracy

EACH = pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)


def make(samples=30, classes=4, dims=(5, 3, 4), *, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    logits = random.normal(0, 2, (len(dims), samples, classes)).astype(np.float32)
    logits[:, np.arange(samples), labels] += 1.5
    features = tuple(random.normal(size=(samples, d)).astype(np.float32) for d in dims)
    return Ensemble(logits, features, tuple(f"{i:04d}" for i in range(samples))), labels


class TestExactRelations:
    @EACH
    def test_training_starts_exactly_at_log_avg(self, parametrisation):
        ensemble, labels = make()
        start = NeuralLogitController(parametrisation=parametrisation, steps=0)
        average = COMBINERS.get("log-avg")()
        np.testing.assert_allclose(
            start.fit(ensemble, labels).weights(ensemble), average.weights(ensemble), rtol=1e-6
        )

    @EACH
    def test_or_at_c_log_avg(self, parametrisation):
        ensemble, labels = make()
        start = NeuralLogitController(parametrisation=parametrisation, steps=0, start="c-log-avg")
        average = COMBINERS.get("c-log-avg")().fit(ensemble, labels)
        np.testing.assert_allclose(
            start.fit(ensemble, labels).weights(ensemble), average.weights(ensemble), rtol=1e-6
        )

    def test_constant_inverse_temperatures_are_c_log_avg(self):
        ensemble, labels = make()
        calibrated = COMBINERS.get("c-log-avg")().fit(ensemble, labels)
        controller = NeuralLogitController(parametrisation="exp", steps=0).fit(ensemble, labels)
        bias = -np.log(calibrated.temperature_).astype(np.float32)
        controller.load_state(controller.state() | {"output_bias_": bias})
        np.testing.assert_allclose(
            controller.combine(ensemble), calibrated.combine(ensemble), rtol=1e-5, atol=1e-6
        )

    @EACH
    def test_scales_stay_where_the_parametrisation_puts_them(self, parametrisation):
        ensemble, labels = make()
        controller = NeuralLogitController(
            parametrisation=parametrisation, steps=50, learning_rate=0.5
        )
        scales = controller.fit(ensemble, labels).scales(ensemble)
        assert np.isfinite(scales).all()
        if parametrisation != "raw":
            assert scales.min() >= 0
        if parametrisation in {"tanh", "sigmoid"}:
            assert scales.max() <= 2
        if parametrisation == "exp":
            assert scales.max() <= np.exp(5) * (1 + 1e-6)
        if parametrisation == "softmax":
            np.testing.assert_allclose(scales.sum(axis=1), 3, rtol=1e-6)


@EACH
@pytest.mark.parametrize(("pull", "start"), [(0.0, "log-avg"), (0.3, "c-log-avg")])
def test_training_equals_autograd(parametrisation, pull, start):
    """Torch's automatic derivatives and its AdamW go the same way from the same start."""
    import torch  # noqa: PLC0415

    settings = {
        "parametrisation": parametrisation,
        "pull": pull,
        "start": start,
        "hidden": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
    }
    ensemble, labels = make()
    begun = NeuralLogitController(steps=0, **settings).fit(ensemble, labels).state()
    ended = NeuralLogitController(steps=40, **settings).fit(ensemble, labels).state()

    scale_of = {
        "exp": torch.exp,
        "softplus": lambda o: torch.nn.functional.softplus(o + np.log(np.e - 1)),
        "raw": lambda o: 1 + o,
        "tanh": lambda o: 1 + torch.tanh(o),
        "sigmoid": lambda o: 2 * torch.sigmoid(o),
        "softmax": lambda o: torch.softmax(o, dim=1) * o.shape[1],
    }[parametrisation]
    names = ["hidden_weight_", "hidden_bias_", "output_weight_", "output_bias_"]
    parameters = [torch.tensor(begun[n], dtype=torch.float64, requires_grad=True) for n in names]
    w1, b1, w2, b2 = parameters
    x = torch.tensor(ensemble.concatenated(), dtype=torch.float64) * 8
    z = torch.tensor(ensemble.logits / begun["temperature_"][:, None, None], dtype=torch.float64)
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.1)
    for _ in range(40):
        s = scale_of(torch.relu(x @ w1 + b1) @ w2 + b2)
        combined = (s.T[:, :, None] * z).mean(dim=0)
        loss = torch.nn.functional.cross_entropy(combined, torch.tensor(labels))
        loss = loss + pull * ((s - 1) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, parameter in zip(names, parameters, strict=True):
        np.testing.assert_allclose(ended[name], parameter.detach().numpy(), rtol=2e-3, atol=2e-4)


class TestTraining:
    def test_another_seed_is_another_start(self):
        ensemble, labels = make()
        one, other = (NeuralLogitController(seed=s).fit(ensemble, labels) for s in (0, 1))
        assert not np.array_equal(one.hidden_weight_, other.hidden_weight_)

    def test_a_pull_keeps_scales_near_one(self):
        ensemble, labels = make()
        free, held = (
            np.abs(NeuralLogitController(pull=p).fit(ensemble, labels).scales(ensemble) - 1).mean()
            for p in (0.0, 3.0)
        )
        assert held < free

    def test_unknown_settings_are_named(self):
        with pytest.raises(UnknownNameError, match=r"'soft'; did you mean 'softmax'\? known: exp"):
            NeuralLogitController(parametrisation="soft")
        with pytest.raises(UnknownNameError, match=r"'avg'; .*known: log-avg, c-log-avg"):
            NeuralLogitController(start="avg")

    @pytest.mark.parametrize("prepared", [2**27, 0])
    def test_many_rows_in_blocks_train_as_one_batch(self, monkeypatch, prepared):
        """Above 4096 rows there used to be minibatches, and 16 times as many steps."""
        ensemble, labels = make(31)
        whole = NeuralLogitController(pull=0.1).fit(ensemble, labels)
        monkeypatch.setattr(nlc, "BLOCK_ROWS", 10)
        monkeypatch.setattr(nlc, "PREPARED_CELLS", prepared)
        blocks = NeuralLogitController(pull=0.1).fit(ensemble, labels)
        for name, value in whole.state().items():
            np.testing.assert_allclose(blocks.state()[name], value, rtol=1e-3, atol=1e-5)


class TestControls:
    def test_shuffled_reads_other_samples_features(self):
        ensemble, labels = make()
        strange = Ensemble(
            ensemble.logits,
            tuple(np.where(np.arange(30)[:, None] == 7, -f, f) for f in ensemble.features),
            ensemble.sample_id,
        )
        control = ShuffledInput(steps=50).fit(ensemble, labels)
        changed = np.any(control.weights(strange) != control.weights(ensemble), axis=1)
        assert changed.sum() == 1
        assert not changed[7]

    def test_constant_gives_all_samples_the_same_weights(self):
        ensemble, labels = make()
        weights = ConstantInput().fit(ensemble, labels).weights(ensemble)
        assert np.ptp(weights, axis=0).max() == 0
        assert np.ptp(weights[0]) > 0


def experts(samples, *, seed, by_region):
    """Nine experts for ten classes; with `by_region`, each is good in two of six regions only.

    The features show the region and nothing of the class.
    """
    world = np.random.default_rng(99)  # the same world for train and test
    regions, classes, dim = 6, 10, 12
    centres = world.normal(size=(9, regions, dim))
    good = np.zeros((9, regions), dtype=bool)
    for expert in range(9):
        good[expert, world.choice(regions, 2, replace=False)] = True
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    region = random.integers(0, regions, samples)
    signal = np.where(good[:, region], 3.0, 0.0) if by_region else np.full((9, samples), 1.0)
    logits = random.normal(0, 1.5, (9, samples, classes))
    logits[:, np.arange(samples), labels] += signal
    logits *= world.uniform(0.5, 2, size=(9, 1, 1))
    features = tuple(
        (c[region] + random.normal(0, 0.5, (samples, dim))).astype(np.float32) for c in centres
    )
    ids = tuple(f"{seed}-{i:05d}" for i in range(samples))
    return Ensemble(logits.astype(np.float32), features, ids), labels


@pytest.fixture(scope="module")
def measured():
    """Test accuracy by (competence by region, labelled rows, combiner)."""
    names = ["c-log-avg", "static", "nlc", "nlc-shuffled", "nlc-constant"]
    table = {}
    for by_region in (True, False):
        test, test_labels = experts(3000, seed=1, by_region=by_region)
        for rows in (40, 1000):
            train, labels = experts(rows, seed=2, by_region=by_region)
            for name in names:
                scores = COMBINERS.get(name)().fit(train, labels).combine(test)
                table[by_region, rows, name] = accuracy(scores, test_labels)
    return table


class TestAcceptance:
    """Does it adapt to the input where that pays, and only there?"""

    def test_competence_by_region_pays(self, measured):
        few, many = (
            measured[True, rows, "nlc"] - measured[True, rows, "c-log-avg"] for rows in (40, 1000)
        )
        assert few > 0
        assert many > 0.02

    def test_constant_competence_gains_nothing(self, measured):
        gain = measured[False, 1000, "nlc"] - measured[False, 1000, "c-log-avg"]
        assert abs(gain) < 0.02

    def test_controls_fall_back_to_static_weights(self, measured):
        for control in ("nlc-shuffled", "nlc-constant"):
            assert abs(measured[True, 1000, control] - measured[True, 1000, "static"]) < 0.02
