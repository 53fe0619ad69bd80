"""Published rivals against loops, another library or automatic differentiation."""

import numpy as np
import pytest
import scipy.spatial
import scipy.special
import torch
from sklearn.preprocessing import normalize

from clipnlc.combiners import COMBINERS
from clipnlc.combiners.dynamic import right_on_the_nearest
from clipnlc.combiners.fusion import unsureness
from clipnlc.combiners.greedy import select_greedily
from clipnlc.ensemble import Ensemble
from clipnlc.testing import example


def inputs_of(ensemble):
    return np.hstack([normalize(block.astype(float)) for block in ensemble.features])


def probabilities(ensemble):
    return scipy.special.softmax(ensemble.logits.astype(float), axis=2)


def ensemble_of(logits, features=()):
    logits = np.asarray(logits, dtype=np.float32)
    features = tuple(np.asarray(block, dtype=np.float32) for block in features)
    return Ensemble(logits, features, tuple(f"{i}" for i in range(logits.shape[1])))


class TestKnoraE:
    @pytest.mark.parametrize(("neighbours", "signal"), [(7, 2.0), (3, 0.5), (100, 1.0)])
    def test_is_its_loops(self, neighbours, signal):
        train, labels = example(40, seed=1, signal=signal, named=False)
        test, _ = example(60, seed=2, signal=signal, named=False)
        right = train.logits.argmax(axis=2) == labels
        far = scipy.spatial.distance.cdist(inputs_of(test), inputs_of(train))
        answers, p = test.logits.argmax(axis=2), probabilities(test)
        expected, sizes = [], set()
        for row in range(60):
            near = list(np.argsort(far[row])[:neighbours])
            voters = []
            while near and not voters:
                voters = [b for b in range(4) if all(right[b, one] for one in near)]
                near.pop()
            voters = voters or [0, 1, 2, 3]
            sizes.add(len(voters))
            votes = p[voters, row].mean(axis=0)
            for b in voters:
                votes[answers[b, row]] += 1
            expected.append(votes / (len(voters) + 1))
        assert len(sizes) > 1
        found = COMBINERS.get("knora-e")(neighbours=neighbours).fit(train, labels).combine(test)
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-9)

    def test_by_hand(self):
        """A is right on 0 and wrong on 1 and 2; B is right on 1 alone; the photo is near 0, then 1."""
        angles = np.radians([0, 40, 80])
        features = [np.stack([np.cos(angles), np.sin(angles)], axis=1)] * 2
        train = ensemble_of([[[2, 0], [2, 0], [2, 0]], [[0, 2], [0, 2], [2, 0]]], features)
        photo = ensemble_of([[[0, 1]], [[3, 0]]], [[[np.cos(0.2), np.sin(0.2)]]] * 2)
        found = COMBINERS.get("knora-e")().fit(train, np.array([0, 1, 1])).combine(photo)
        p = 1 / (1 + np.e)
        np.testing.assert_allclose(np.exp(found), [[p / 2, (1 + 1 - p) / 2]], rtol=1e-6)

    def test_where_nobody_is_right_all_vote(self):
        assert right_on_the_nearest(np.zeros((1, 3, 2), dtype=bool)).tolist() == [[True, True]]


class TestGreedySelection:
    @staticmethod
    def loops(own, steps):
        def loss(members):
            return -np.log([sum(row[b] for b in members) / len(members) for row in own]).mean()

        order = sorted(range(own.shape[1]), key=lambda b: loss([b]))
        starts = [order[: n + 1] for n in range(len(order))]
        members = min(starts, key=loss)
        nested = [members]
        for _ in range(steps):
            members = min(([*members, b] for b in range(own.shape[1])), key=loss)
            nested.append(members)
        best = min(nested, key=loss)
        return np.array([best.count(b) for b in range(own.shape[1])]) / len(best)

    @pytest.mark.parametrize("bags", [0, 4])
    def test_is_its_loops(self, bags):
        train, labels = example(25, seed=1, signal=1.0, named=False)
        test, _ = example(9, seed=2, named=False)
        own = probabilities(train)[:, np.arange(25), labels].T
        random, weight = np.random.default_rng(0), np.zeros(4)
        for _ in range(bags):
            bag = np.sort(random.permutation(4)[:2])
            weight[bag] += self.loops(own[:, bag], 12) / bags
        weight = weight if bags else self.loops(own, 12)
        fitted = COMBINERS.get("greedy-selection")(steps=12, bags=bags).fit(train, labels)
        np.testing.assert_allclose(fitted.weight_, weight, atol=1e-12)
        assert (fitted.weight_ > 0).sum() > 1
        expected = np.tensordot(weight, probabilities(test), axes=1)
        np.testing.assert_allclose(np.exp(fitted.combine(test)), expected, rtol=1e-9)

    def test_by_hand(self):
        """The product of the two rows' means: A 0.16, B 0.2, A and B 0.6 * 0.35 = 0.21.

        Then A, B, B 0.533 * 0.4 = 0.2133 (A, A, B 0.2), then at most 0.2125 with a third B.
        """
        own = np.array([[0.8, 0.4], [0.2, 0.5]])
        assert select_greedily(own, steps=0).tolist() == [0.5, 0.5]
        for steps in (1, 2):
            np.testing.assert_allclose(select_greedily(own, steps=steps), [1 / 3, 2 / 3])


class TestConfOt:
    def test_is_sinkhorns_passes_in_plain_numbers(self):
        test, _ = example(37, seed=2, named=False)
        plan = np.exp(test.logits.astype(float).mean(axis=0))
        plan /= plan.sum()
        for _ in range(3):
            plan = plan / plan.sum(axis=0) / 5
            plan = plan / plan.sum(axis=1, keepdims=True) / 37
        found = COMBINERS.get("conf-ot")().combine(test)
        np.testing.assert_allclose(scipy.special.softmax(found, axis=1), plan * 37, rtol=1e-9)

    def test_many_passes_make_the_classes_equal(self):
        test, _ = example(40, seed=2, named=False)
        plan = scipy.special.softmax(COMBINERS.get("conf-ot")(passes=2000).combine(test), axis=1)
        np.testing.assert_allclose(plan.mean(axis=0), 0.2, rtol=1e-6)

    def test_by_hand(self):
        """exp(z) is (4, 1), (2, 2). Classes to 1: (2/3, 1/3), (1/3, 2/3): rows sum to 1 already."""
        logits = np.log([[[4, 1], [2, 2]]])
        found = COMBINERS.get("conf-ot")(passes=1).combine(ensemble_of(logits))
        expected = [[2 / 3, 1 / 3], [1 / 3, 2 / 3]]
        np.testing.assert_allclose(scipy.special.softmax(found, axis=1), expected, rtol=1e-6)

    def test_blocks_of_rows_change_nothing(self, monkeypatch):
        test, _ = example(37, seed=2)
        for name in ("conf-ot", "sota-transport"):
            whole = COMBINERS.get(name)().combine(test)
            monkeypatch.setattr("clipnlc.fitting.BLOCK_CELLS", 40)
            np.testing.assert_allclose(COMBINERS.get(name)().combine(test), whole, atol=1e-6)
            monkeypatch.undo()


class TestSotaTransport:
    @staticmethod
    def by_loops(test, rounds, first):
        """Densities by scipy, Sinkhorn by potentials in the log domain, statistics by loops."""
        features = [normalize(block.astype(float)) for block in test.features]
        p = probabilities(test)
        backbones, samples, classes = p.shape
        plan = p.mean(axis=0)
        means, variances = [], []
        for f in features:
            of = []
            for c in range(classes):
                rows = sorted(range(samples), key=lambda i, c=c: -plan[i, c])[:first]
                mean = sum(plan[i, c] * f[i] for i in rows)
                of.append(mean / np.linalg.norm(mean))
            means.append(of)
            variances.append(np.full(f.shape[1], 1 / f.shape[1]))
        alpha = beta = np.full(backbones, 1 / backbones)
        for _ in range(rounds):
            g = np.empty_like(p)
            for b, f in enumerate(features):
                for i in range(samples):
                    d = [((f[i] - m) ** 2 / variances[b]).sum() for m in means[b]]
                    g[b, i] = scipy.special.softmax(-np.array(d) / 2 / 50)
            mixed = sum(alpha[b] * g[b] + beta[b] * p[b] for b in range(backbones)) / 0.01
            u, v = np.zeros(samples), np.zeros(classes)
            for _ in range(15):
                v = np.log(samples / classes) - scipy.special.logsumexp(mixed + u[:, None], axis=0)
                u = -scipy.special.logsumexp(mixed + v, axis=1)
            plan = np.exp(mixed + u[:, None] + v)
            answers = plan.argmax(axis=1)
            alpha, beta = (
                np.array([(q.argmax(axis=1) == answers).sum() for q in of], dtype=float)
                for of in (g, p)
            )
            alpha, beta = alpha / alpha.sum(), beta / beta.sum()
            for b, f in enumerate(features):
                sums = [sum(plan[i, c] * f[i] for i in range(samples)) for c in range(classes)]
                means[b] = [s / np.linalg.norm(s) for s in sums]
                variances[b] = (
                    sum(
                        plan[i, c] * (f[i] - means[b][c]) ** 2
                        for i in range(samples)
                        for c in range(classes)
                    )
                    / samples
                )
        return plan

    @pytest.mark.parametrize(("samples", "rounds", "first"), [(23, 4, 8), (6, 2, 8), (20, 3, 2)])
    def test_is_its_formulas(self, samples, rounds, first):
        test, _ = example(samples, 3, 3, seed=2, signal=1.0, named=False)
        settings = {"rounds": rounds, "first": first}
        found = COMBINERS.get("sota-transport")(**settings).combine(test)
        expected = self.by_loops(test, rounds, first)
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-6, atol=1e-9)
        assert ((expected > 0.01) & (expected < 0.99)).any()

    def test_by_hand(self):
        """Two rows that both prefer class 0: equal classes leave the surer one there.

        Features are equal, so the Gaussians say 1/2 and F is 1/2 + p: 1.4, 0.6 and 1.2, 0.8.
        With K = exp(F) the plan that has all sums 1 is (x, 1 - x; 1 - x, x) with
        (x / (1 - x))^2 = exp(1.4 - 0.6 - 1.2 + 0.8) = exp(0.4).
        """
        logits = np.log([[[0.9, 0.1], [0.7, 0.3]]])
        settings = {"rounds": 1, "passes": 500, "sharpness": 1.0}
        test = ensemble_of(logits, [np.ones((2, 3))])
        found = COMBINERS.get("sota-transport")(**settings).combine(test)
        x = 1 / (1 + np.exp(-0.2))
        np.testing.assert_allclose(np.exp(found), [[x, 1 - x], [1 - x, x]], rtol=1e-6)


class TestNeuralEnsembler:
    @pytest.mark.parametrize("batch_rows", [512, 7])
    def test_is_trained_as_torch_trains_it(self, batch_rows):
        train, labels = example(20, 3, 4, seed=1, signal=1.0, named=False)
        test, _ = example(11, 3, 4, seed=2, named=False)
        cls = COMBINERS.get("neural-ensembler")
        fitted = cls(steps=30, batch_rows=batch_rows, hidden=6, dropped=0.5, seed=3)
        fitted.fit(train, labels)
        random = np.random.default_rng(3)
        net = []
        for inputs, outputs in ((4, 6), (6, 6), (6, 6), (6, 4)):
            layer = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
            bound = 1 / np.sqrt(inputs)
            start = [random.uniform(-bound, bound, s) for s in ((inputs, outputs), (outputs,))]
            layer.weight.data = torch.tensor(start[0].astype(np.float32).T, dtype=torch.float64)
            layer.bias.data = torch.tensor(start[1].astype(np.float32), dtype=torch.float64)
            net.append(layer)

        def forward(p, mask, rate):
            hidden = torch.relu(net[1](torch.relu(net[0](p * mask / (1 - rate)))))
            out = net[3](torch.relu(net[2](hidden.mean(dim=1)))).masked_fill(mask == 0, -1e9)
            return (out.softmax(dim=-1)[:, None] * p).sum(dim=-1)

        p = torch.tensor(probabilities(train).transpose(1, 2, 0))
        every, order = np.arange(20), []
        adam = torch.optim.Adam([q for layer in net for q in layer.parameters()], lr=1e-3)
        for _ in range(30):
            rows = every
            if batch_rows < 20:
                order = list(order) or list(random.permutation(20))
                rows, order = sorted(order[:batch_rows]), order[batch_rows:]
            mask = np.zeros(4)
            while not mask.any():
                mask = (random.uniform(size=4) >= 0.5).astype(float)
            mixed = forward(p[rows], torch.tensor(mask), 0.5)
            adam.zero_grad()
            torch.nn.functional.nll_loss(mixed.log(), torch.tensor(labels[rows])).backward()
            adam.step()
        given = torch.tensor(probabilities(test).transpose(1, 2, 0))
        expected = forward(given, torch.ones(4), 0.0).detach().numpy()
        np.testing.assert_allclose(np.exp(fitted.combine(test)), expected, atol=2e-6)

    def test_by_hand(self):
        """Weights 0 but for two: the mean of what A says, 1/2 in any row, is doubled twice.

        So the outputs are 2 and 0, A's weight is e^2 / (e^2 + 1) = 0.8808, and of A's 0.9 and B's 0.5
        comes 0.8808 * 0.9 + 0.1192 * 0.5 = 0.8523.
        """
        cls = COMBINERS.get("neural-ensembler")
        up = np.zeros((2, 2), dtype=np.float32)
        up[0, 0] = 1
        bias = np.zeros(2, dtype=np.float32)
        state = dict(zip(cls.learnt, [2 * up, bias, 2 * up, bias, up, bias, up, bias], strict=True))
        logits = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
        found = cls.rebuild({"hidden": 2}, state).combine(ensemble_of(logits))
        np.testing.assert_allclose(np.exp(found), [[0.8523, 0.1477]], atol=1e-4)


class TestAmu:
    def test_is_trained_as_torch_trains_it(self):
        train, labels = example(21, 4, 3, seed=1, signal=1.0, named=False)
        test, _ = example(9, 4, 3, seed=2, named=False)
        labels = np.where(labels == 2, 1, labels)  # a class without a label
        settings = {"epochs": 4, "batch_rows": 8, "learning_rate": 0.01, "seed": 5}
        fitted = COMBINERS.get("amu")(**settings).fit(train, labels)

        def head(f, weight):
            u = f @ weight.T
            return (u - u.mean(dim=1, keepdim=True)) / torch.std(u, dim=1, keepdim=True)

        def kappa(z):
            p = z.softmax(dim=1)
            s = (p - p.mean(dim=1, keepdim=True)) / torch.std(p, dim=1, keepdim=True)
            return 1 / ((s**4).mean(dim=1, keepdim=True) / 250) ** 0.4

        def read(ensemble):
            f = torch.tensor(inputs_of(ensemble) / np.sqrt(3))
            return torch.tensor(ensemble.logits.astype(float).mean(axis=0)), f

        z, f = read(train)
        start = torch.zeros((4, f.shape[1]), dtype=torch.float64)
        for row, label in zip(f, labels, strict=True):
            start[label] += row / (21 / 4)
        weight = torch.nn.Parameter(start)
        adam = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.01, eps=1e-4)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 4 * 3)
        random, truth = np.random.default_rng(5), torch.tensor(labels)
        for _ in range(4):
            order = random.permutation(21)
            for rows in (order[:8], order[8:16], order[16:]):
                a = head(f[rows], weight)
                fused = z[rows] + 0.5 * kappa(z[rows]) * a
                entropy = torch.nn.functional.cross_entropy
                loss = 0.35 * entropy(fused, truth[rows]) + 0.65 * entropy(a, truth[rows])
                adam.zero_grad()
                loss.backward()
                adam.step()
                cosine.step()
        z, f = read(test)
        expected = (z + 0.5 * kappa(z) * head(f, weight)).detach().numpy()
        np.testing.assert_allclose(fitted.weight_, weight.detach().numpy().T, atol=1e-5)
        np.testing.assert_allclose(fitted.combine(test), expected, rtol=1e-4)

    def test_kappa_by_hand(self):
        """Of 0.7, 0.1, 0.1, 0.1 the mean is 1/4, the deviation 0.3; standardised 1.5 and thrice -0.5.

        The kurtosis is (1.5^4 + 3 / 16) / 4 = 1.3125, and (1.3125 / 250)^-0.5 = 13.8013. Of equal ones it
        is taken as (3/4)^2, the least of four classes: (0.5625 / 250)^-0.5 = 21.0819.
        """
        logits = np.log([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
        np.testing.assert_allclose(unsureness(logits, power=0.5), [13.8013, 21.0819], rtol=1e-5)
        assert unsureness(logits[:, :1], power=0.5).shape == (2,)
