"""Every check of the conformance suites fails on something that was written to break it."""

# ruff: noqa: ARG002  (what breaks a check ignores what it should read)

import hashlib

import numpy as np
import pytest
from heads_examples import NearestMean

from clipnlc.combiners import Combiner, Weigher
from clipnlc.combiners.explanation import Contributions
from clipnlc.fitting import softmax
from clipnlc.heads.base import normalise
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.measures import Measure, PairMeasure
from clipnlc.testing import (
    COMBINER_CHECKS,
    HEAD_CHECKS,
    MEASURE_CHECKS,
    PAIR_MEASURE_CHECKS,
    check_combiner,
    check_head,
    check_measure,
)


class Mean(Combiner):
    """A combiner that keeps the contract, and learns nothing."""

    def _combine(self, ensemble):
        return np.log(softmax(ensemble.logits.astype(float)).mean(axis=0))


class Weighed(Weigher):
    """A combiner that keeps the contract, and learns."""

    needs_labels = True
    learnt = ("weight_",)

    def _learn(self, ensemble, labels):
        self.weight_ = 1.0 + (ensemble.logits.argmax(axis=2) == labels).mean(axis=1)

    def _weights(self, ensemble):
        self.require_fitted()
        return np.tile(self.weight_.astype(np.float32), (ensemble.logits.shape[1], 1))


class Single(Mean):
    def _combine(self, ensemble):
        return super()._combine(ensemble).astype(np.float32)


class Overwriting(Mean):
    def combine(self, ensemble):
        ensemble.logits[:] += 1
        return self._combine(ensemble)


class FirstRows(Weighed):
    def fit(self, ensemble, labels, pool=None):
        return super().fit(ensemble.rows(range(20)), labels[:20], pool)


class ByRowNumber(Mean):
    def _combine(self, ensemble):
        scores = super()._combine(ensemble)
        return scores + np.arange(len(scores))[:, None] * np.arange(scores.shape[1])


class Worst(Mean):
    def _combine(self, ensemble):
        return -super()._combine(ensemble)


class PrefersTheFirst(Mean):
    def combine(self, ensemble):
        return self._combine(ensemble) + 100.0 * (np.arange(ensemble.logits.shape[2]) == 0)


class AsGiven(Weighed):
    def fit(self, ensemble, labels, pool=None):
        super().fit(ensemble, labels, pool)
        self.weight_ = ensemble.logits.mean(axis=(1, 2)).astype(float)
        return self


class Random(Mean):
    def _combine(self, ensemble):
        scores = super()._combine(ensemble)
        return scores + np.random.default_rng().normal(size=scores.shape)


class ByBytes(Weighed):
    def _learn(self, ensemble, labels):
        digest = hashlib.blake2b(ensemble.logits.tobytes(), digest_size=4).digest()
        self.weight_ = np.random.default_rng(list(digest)).dirichlet([0.2] * len(ensemble.logits))


class Hiding(Weighed):
    def _learn(self, ensemble, labels):
        super()._learn(ensemble, labels)
        self.hidden_ = 3.0

    def _weights(self, ensemble):
        return super()._weights(ensemble) * getattr(self, "hidden_", 1.0)


class TakesAnyState(Weighed):
    def load_state(self, state):
        return self


class Adding(Weighed):
    def _learn(self, ensemble, labels):
        self.total_ = getattr(self, "total_", 0) + len(labels)
        self.weight_ = np.full(len(ensemble.logits), self.total_, dtype=float)


class ClaimsFeatures(Mean):
    needs_features = True


class MeansOfFeatures(Mean):
    """Divides by how many features a backbone has, which may be none."""

    needs_features = True

    def _combine(self, ensemble):
        with np.errstate(invalid="ignore", divide="ignore"):
            sizes = [each.sum(axis=1) / each.shape[1] for each in ensemble.features]
        return super()._combine(ensemble) + np.sum(sizes, axis=0)[:, None]


class ClaimsLabels(Mean):
    needs_labels = True


class IgnoresPool(Weighed):
    reads_pool = True

    def _learn_with_pool(self, ensemble, labels, pool):
        self._learn(ensemble, labels)


class Unchecked(Weighed):
    def fit(self, ensemble, labels, pool=None):
        self.weight_ = np.ones(len(ensemble.logits))
        return self


class DividesByNothing(Weighed):
    def _learn(self, ensemble, labels):
        super()._learn(ensemble, labels)
        with np.errstate(all="ignore"):
            self.weight_ = self.weight_ / self.weight_.std()


class Centred(Mean):
    def _combine(self, ensemble):
        scores = super()._combine(ensemble)
        return scores - scores.mean(axis=0)


class ClaimsTest(Mean):
    reads_test = True
    row_wise = False


class Doubled(Weighed):
    def _combine(self, ensemble):
        return 2 * super()._combine(ensemble)


class Misexplained(Mean):
    def _contributions(self, ensemble):
        return Contributions(-ensemble.logits.astype(float), {})


class Unfitted(Weighed):
    def require_fitted(self):
        self.weight_ = getattr(self, "weight_", np.ones(4))


COMBINERS = {
    "_scores_have_a_row_per_sample_and_are_finite": Single,
    "_inputs_stay_as_they_were": Overwriting,
    "_learns_the_same_from_rows_in_any_order": FirstRows,
    "_scores_move_with_their_rows": ByRowNumber,
    "_answers_its_own_training_rows": Worst,
    "_named_classes_may_come_in_any_order": PrefersTheFirst,
    "_nameless_classes_keep_their_order": PrefersTheFirst,
    "_named_backbones_may_come_in_any_order": AsGiven,
    "_gives_the_same_bits_twice": Random,
    "_hangs_on_no_last_bit": ByBytes,
    "_state_travels": Hiding,
    "_refuses_a_foreign_state": TakesAnyState,
    "_refit_forgets": Adding,
    "_needs_features_is_said_truly": ClaimsFeatures,
    "_needs_labels_is_said_truly": ClaimsLabels,
    "_reads_pool_is_said_truly": IgnoresPool,
    "_labels_must_fit_the_rows": Unchecked,
    "_few_labels_stay_finite": DividesByNothing,
    "_rows_may_be_combined_in_batches": Centred,
    "_reads_test_is_said_truly": ClaimsTest,
    "_a_weigher_is_the_weighted_sum_of_logits": Doubled,
    "_explains_what_it_predicts": Misexplained,
    "_unfitted_use_is_refused": Unfitted,
    "_takes_a_backbone_without_features": MeansOfFeatures,
}


class DoubleLogits(NearestMean):
    def logits(self, features):
        return super().logits(features).astype(np.float64)


class OverwritesFeatures(NearestMean):
    def logits(self, features):
        features[:] += 1
        return super().logits(features)


class FirstExamples(NearestMean):
    def fit(self, *, features, labels, sample_id, **more):
        rows = slice(30)
        return super().fit(
            features=features[rows], labels=labels[rows], sample_id=sample_id[rows], **more
        )


class PlainProduct(NearestMean):
    def logits(self, features):
        return normalise(features.astype(np.float32)) @ self.weight_.T * float(self.logit_scale_)


class PrefersTheFirstClass(NearestMean):
    def logits(self, features):
        return super().logits(features) + np.float32(5) * (np.arange(4) == 0).astype(np.float32)


class ByLength(NearestMean):
    def logits(self, features):
        return super().logits(features) * np.linalg.norm(features, axis=1, keepdims=True)


class WorstHead(NearestMean):
    def logits(self, features):
        return -super().logits(features)


class AddingHead(NearestMean):
    def _learn(self, examples, **more):
        super()._learn(examples, **more)
        self.total_ = getattr(self, "total_", 0) + 1
        self.bias_ = self.bias_ + np.float32(self.total_)


class HidingHead(NearestMean):
    def _learn(self, examples, **more):
        super()._learn(examples, **more)
        self.hidden_ = 3.0

    def logits(self, features):
        return super().logits(features) * np.float32(getattr(self, "hidden_", 1.0))


class Wider(NearestMean):
    @property
    def dim(self):
        return 33


class TakesAnyHeadState(NearestMean):
    def load_state(self, state):
        return self


class InventsTexts(ZeroShotHead):
    def fit(self, *, features, texts=None, logit_scale=None, **more):
        if texts is None:
            texts, logit_scale = np.ones((4, features.shape[1]), dtype=np.float32), 1.0
        return super().fit(features=features, texts=texts, logit_scale=logit_scale, **more)


class ClaimsToLearn(ZeroShotHead):
    needs_labels = True


class ClaimsTeacher(ZeroShotHead):
    needs_teacher = True


class WantsMore(NearestMean):
    needs_validation = True


class ClaimsViews(NearestMean):
    takes_views = True


class NamesRowsItself(NearestMean):
    def fit(self, *, features, sample_id, **more):
        names = tuple(str(row) for row in range(len(features)))
        return super().fit(features=features, sample_id=names, **more)


class NothingByNothing(NearestMean):
    def _learn(self, examples, **more):
        super()._learn(examples, **more)
        with np.errstate(all="ignore"):
            self.weight_ = self.weight_ / np.linalg.norm(self.weight_, axis=1, keepdims=True)


HEADS = {
    "_logits_have_a_row_per_sample_and_are_finite": DoubleLogits,
    "_inputs_stay_as_they_were": OverwritesFeatures,
    "_learns_the_same_from_rows_in_any_order": FirstExamples,
    "_gives_a_row_the_same_bits_in_any_block": PlainProduct,
    "_permuted_classes_permute_the_logits": PrefersTheFirstClass,
    "_lengths_of_features_and_texts_do_not_matter": ByLength,
    "_answers_its_own_training_rows": WorstHead,
    "_gives_the_same_bits_twice_and_refit_forgets": AddingHead,
    "_is_built_again_from_settings_and_state": HidingHead,
    "_knows_the_width_of_its_features": Wider,
    "_unfitted_use_and_foreign_states_are_refused": TakesAnyHeadState,
    "_needs_texts_is_said_truly": InventsTexts,
    "_needs_labels_is_said_truly": ClaimsToLearn,
    "_needs_teacher_is_said_truly": ClaimsTeacher,
    "_needs_nothing_that_fit_does_not_take": WantsMore,
    "_takes_views_is_said_truly": ClaimsViews,
    "_labels_must_fit_the_rows": NamesRowsItself,
    "_few_labels_stay_finite": NothingByNothing,
}


def sure(block):
    return block.probs.max(axis=1)[:, None]


def single(block):
    return sure(block).astype(np.float32)


def overwriting(block):
    block.scores[:] = 0
    return sure(block)


def centred(block):
    return sure(block) - sure(block).mean()


def number_of_the_class(block):
    return block.predicted[:, None] / 10


def share_of_a_class(block):
    return np.full((len(block.labels), 1), 1 / block.scores.shape[1])


def first(values, labels):
    return values[0, 0]


def of_labels(values, labels):
    return float((labels * np.arange(len(labels))).mean())


def measure(each="sure", **more):
    facts = {"title": "sure", "unit": "", "better": "higher", "bounds": (0.0, 1.0)}
    place = f"{__name__}:{each}"
    return Measure(**{**facts, "meaning": "how sure", "each": place, **more})


MEASURES = {
    "_says_what_a_table_needs": measure(title=""),
    "_gives_each_sample_values": measure("single"),
    "_leaves_its_inputs_alone": measure("overwriting"),
    "_gives_a_sample_the_same_bits_in_any_block": measure("centred"),
    "_is_within_its_bounds": measure(bounds=(0.0, 0.1)),
    "_does_not_hang_on_the_order_of_samples": measure(total=f"{__name__}:first"),
    "_does_not_hang_on_the_order_of_classes": measure("number_of_the_class"),
    "_passes_over_classes_that_cannot_be": measure("share_of_a_class"),
    "_looks_at_no_label_where_pooled": measure(total=f"{__name__}:of_labels", pooled=True),
}


def alike(predictions, labels):
    return (predictions[:, None] == predictions[None]).mean(axis=2)


def triangle(predictions, labels):
    return np.triu(alike(predictions, labels))


def by_place(predictions, labels):
    places = np.arange(len(predictions))
    return (places[:, None] + places) / 6


def of_the_first(predictions, labels):
    return np.full((3, 3), predictions[0, 0] / 4)


def pair_measure(function="alike", **more):
    facts = {"title": "alike", "unit": "", "better": "lower", "bounds": (0.0, 1.0)}
    place = f"{__name__}:{function}"
    return PairMeasure(**{**facts, "meaning": "how alike", "function": place, **more})


PAIR_MEASURES = {
    "_says_what_a_table_needs": pair_measure(title=""),
    "_is_a_symmetric_matrix_within_its_bounds": pair_measure("triangle"),
    "_treats_equal_backbones_alike": pair_measure("by_place"),
    "_pairs_do_not_hang_on_the_order_of_samples": pair_measure("of_the_first"),
}

SUITES = [
    (COMBINER_CHECKS, COMBINERS),
    (HEAD_CHECKS, HEADS),
    (MEASURE_CHECKS, MEASURES),
    (PAIR_MEASURE_CHECKS, PAIR_MEASURES),
]
CASES = [(check, broken[check.__name__]) for checks, broken in SUITES for check in checks]


@pytest.mark.parametrize(
    ("check", "broken"), CASES, ids=[check.__name__.strip("_") for check, _ in CASES]
)
def test_a_check_fails_on_what_breaks_it(check, broken):
    with pytest.raises(AssertionError, match=r"\w"):
        check(broken)


def test_what_keeps_the_contract_passes():
    check_combiner(Mean)
    check_combiner(Weighed)
    check_head(NearestMean)
    check_measure(measure())
    check_measure(pair_measure())


def test_a_failure_names_its_check():
    with pytest.raises(AssertionError, match="the title is empty") as caught:
        check_measure(measure(title=""))
    assert caught.value.__notes__ == ["in _says_what_a_table_needs"]
