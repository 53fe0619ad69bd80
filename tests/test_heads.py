"""Every head keeps the family's contract; each does what its definition says."""

import numpy as np
import pytest

from clipnlc.fitting import cross_entropy
from clipnlc.heads import HEADS
from clipnlc.heads.linear import LinearHead
from clipnlc.heads.zero_shot import ZeroShotHead, zero_shot_logits

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
class TestContract:
    def test_logits_have_a_row_per_sample_and_are_finite(self, name):
        logits = HEADS.get(name)().fit(**make()).logits(make(7, seed=1)["features"])
        assert logits.shape == (7, 4)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()

    def test_inputs_stay_as_they_were(self, name):
        given, copy = make(), make()
        HEADS.get(name)().fit(**given).logits(given["features"])
        for key in ("features", "labels", "texts"):
            np.testing.assert_array_equal(given[key], copy[key])

    def test_the_order_of_rows_does_not_matter(self, name):
        given = make()
        order = np.random.default_rng(0).permutation(60)
        mixed = given | {
            "features": given["features"][order],
            "labels": given["labels"][order],
            "sample_id": [given["sample_id"][i] for i in order],
        }
        one, other = (HEADS.get(name)().fit(**rows).state() for rows in (given, mixed))
        for key, value in one.items():
            np.testing.assert_array_equal(other[key], value)

    def test_renaming_classes_renames_logits(self, name):
        given = make()
        names = np.array([2, 0, 3, 1])
        renamed = given | {
            "labels": np.argsort(names)[given["labels"]],
            "texts": given["texts"][names],
        }
        logits = HEADS.get(name)().fit(**renamed).logits(given["features"])
        expected = HEADS.get(name)().fit(**given).logits(given["features"])[:, names]
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)

    def test_features_and_texts_are_normalised(self, name):
        given = make()
        longer = given | {"features": given["features"] * 7, "texts": given["texts"] * 3}
        np.testing.assert_allclose(
            HEADS.get(name)().fit(**longer).logits(longer["features"]),
            HEADS.get(name)().fit(**given).logits(given["features"]),
            rtol=1e-3,
            atol=1e-3,
        )

    def test_same_seed_same_bits_and_refit_forgets(self, name):
        head = HEADS.get(name)(seed=3).fit(**make(40, seed=5)).fit(**make())
        again = HEADS.get(name)(seed=3).fit(**make())
        for key, value in head.state().items():
            np.testing.assert_array_equal(again.state()[key], value)

    def test_state_travels(self, name):
        given = make()
        head = HEADS.get(name)().fit(**given)
        state = head.state()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        again = HEADS.get(name)().load_state(state)
        np.testing.assert_array_equal(
            again.logits(given["features"]), head.logits(given["features"])
        )

    def test_unfitted_use_and_foreign_states_are_refused(self, name):
        with pytest.raises(ValueError, match="is not fitted; call fit or load_state"):
            HEADS.get(name)().logits(make()["features"])
        with pytest.raises(ValueError, match=r"learns \[.*\], the state has \['foreign_'\]"):
            HEADS.get(name)().load_state({"foreign_": np.zeros(1)})

    def test_one_row_is_enough(self, name):
        assert np.isfinite(HEADS.get(name)().fit(**make(1)).logits(make()["features"])).all()


class TestZeroShot:
    def test_equals_its_definition(self):
        given = make()
        f, t = given["features"].astype(float), given["texts"].astype(float)
        cosines = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in t] for x in f]
        logits = zero_shot_logits(
            given["features"], given["texts"], logit_scale=20.0, logit_bias=-1.0
        )
        np.testing.assert_allclose(logits, 20 * np.array(cosines) - 1, rtol=1e-4, atol=1e-5)

    def test_no_labels_no_rows(self):
        given = make() | {
            "features": np.empty((0, 8), dtype=np.float32),
            "labels": np.empty(0, dtype=np.int64),
            "sample_id": [],
        }
        head = ZeroShotHead().fit(**given)
        np.testing.assert_array_equal(
            head.logits(make()["features"]),
            zero_shot_logits(make()["features"], given["texts"], logit_scale=20.0),
        )


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
