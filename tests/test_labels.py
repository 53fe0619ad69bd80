"""Which labelled samples are drawn, as properties; how draws are spelled, sorted and read back."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipnlc.cli.options import labels_of
from clipnlc.errors import DataError
from clipnlc.labels import KINDS, Labels, ranks, stratified_split

SEEDS = st.integers(0, 2**32)

labelled = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


def names(labels):
    return [f"img/{i}" for i in range(len(labels))]


class TestRanks:
    @given(st.lists(st.text(), unique=True))
    def test_are_each_place_once_and_move_with_the_samples(self, sample_id):
        places = ranks(sample_id, draw="x")
        assert sorted(places) == list(range(len(sample_id)))
        assert ranks(sample_id[::-1], draw="x").tolist() == places[::-1].tolist()

    def test_draws_differ(self):
        sample_id = [str(i) for i in range(50)]
        assert ranks(sample_id, draw="1").tolist() != ranks(sample_id, draw="2").tolist()


class TestStratifiedSplit:
    @given(labelled, st.floats(0.01, 0.99), SEEDS)
    def test_every_class_of_two_or_more_is_on_both_sides(self, labels, share, seed):
        kept, held = stratified_split(labels, names(labels), share=share, seed=seed)
        assert sorted([*kept, *held]) == list(range(len(labels)))
        classes, counts = np.unique(labels, return_counts=True)
        if counts.max() == 1:  # nothing to stratify: drawn from all rows
            assert len(held) == min(max(round(share * len(labels)), 1), len(labels) - 1)
            return
        for label, count in zip(classes, counts, strict=True):
            on_held = (labels[held] == label).sum()
            assert on_held == 0 if count == 1 else 1 <= on_held < count
            assert abs(on_held - share * count) <= 1

    @given(labelled, SEEDS)
    def test_does_not_depend_on_the_order_of_rows(self, labels, seed):
        order = np.random.default_rng(seed).permutation(len(labels))
        sample_id = names(labels)
        mixed = [sample_id[i] for i in order]
        _, held = stratified_split(labels, sample_id, share=0.3, seed=seed)
        _, again = stratified_split(labels[order], mixed, share=0.3, seed=seed)
        assert {sample_id[i] for i in held} == {mixed[i] for i in again}

    def test_a_tenth_of_each_class(self):
        labels = np.repeat([0, 1], [100, 50])
        _, held = stratified_split(labels, names(labels), share=0.1, seed=0)
        assert np.bincount(labels[held]).tolist() == [10, 5]


class TestFewShot:
    @given(labelled, st.integers(1, 8), SEEDS)
    def test_gives_each_class_its_shots_or_all_it_has(self, labels, shots, seed):
        draw = Labels.shots(shots, seed=seed).draw(labels, names(labels), classes=6)
        has = np.bincount(labels, minlength=6)
        got = np.bincount(labels[draw.rows], minlength=6)
        assert got.tolist() == np.minimum(has, shots).tolist()
        assert draw.short == {c: n for c, n in enumerate(has) if n < shots}
        assert (np.diff(draw.rows) > 0).all()

    @given(labelled, SEEDS)
    def test_more_shots_contain_fewer(self, labels, seed):
        chosen = [
            set(Labels.shots(k, seed=seed).draw(labels, names(labels), classes=5).rows)
            for k in (1, 2, 4, 8)
        ]
        for fewer, more in pairwise(chosen):
            assert fewer <= more

    @given(labelled, SEEDS)
    def test_does_not_depend_on_the_order_of_rows(self, labels, seed):
        order = np.random.default_rng(seed).permutation(len(labels))
        sample_id = names(labels)
        mixed = [sample_id[i] for i in order]
        draw = Labels.shots(2, seed=seed).draw(labels, sample_id, classes=5)
        again = Labels.shots(2, seed=seed).draw(labels[order], mixed, classes=5)
        assert {sample_id[i] for i in draw.rows} == {mixed[i] for i in again.rows}

    def test_seeds_differ_and_repeat(self):
        labels = np.repeat(np.arange(5), 20)
        draws = [
            Labels.shots(4, seed=s).draw(labels, names(labels), classes=5).rows.tolist()
            for s in (0, 0, 1)
        ]
        assert draws[0] == draws[1] != draws[2]


labels_of_any_kind = st.one_of(
    st.just(Labels.none()),
    st.builds(Labels.shots, st.integers(1, 500), seed=st.integers(0, 99)),
    st.builds(Labels.count, st.integers(1, 500), seed=st.integers(0, 99)),
    st.builds(Labels.holdout, st.sampled_from([0.001, 0.1, 0.25, 1.0]), seed=st.integers(0, 99)),
    st.builds(Labels.all, seed=st.integers(0, 99)),
)


class TestLabels:
    @given(labels_of_any_kind)
    def test_a_name_is_read_back(self, which):
        assert Labels.parse(which.name) == which

    @given(st.lists(labels_of_any_kind, max_size=12))
    def test_sorts_as_columns_do(self, several):
        for one, other in pairwise(sorted(several)):
            places = [(KINDS.index(w.kind), w.amount, w.seed) for w in (one, other)]
            assert places == sorted(places)

    @given(labelled, st.integers(1, 80), SEEDS)
    def test_a_count_is_drawn_whatever_the_class_and_holds_those_of_fewer(self, labels, n, seed):
        more, fewer = (
            Labels.count(k, seed=seed).draw(labels, names(labels), classes=5) for k in (n + 3, n)
        )
        assert len(fewer.rows) == min(n, len(labels))
        assert set(fewer.rows) <= set(more.rows)
        assert fewer.short == {}

    @given(labelled, SEEDS)
    def test_none_and_all(self, labels, seed):
        draws = (Labels.none(), Labels.all(seed=seed), Labels.holdout(1.0, seed=seed))
        none, every, held = (w.draw(labels, names(labels), classes=5).rows.tolist() for w in draws)
        assert none == []
        assert every == held == list(range(len(labels)))

    def test_a_holdout_is_the_held_part_of_the_split(self):
        labels = np.repeat([0, 1], [100, 50])
        _, held = stratified_split(labels, names(labels), share=0.1, seed=3)
        drawn = Labels.holdout(0.1, seed=3).draw(labels, names(labels), classes=2)
        assert drawn.rows.tolist() == held.tolist()

    @pytest.mark.parametrize("name", ["", "4-shots", "x-seed-0", "0-shots-seed-0x", "no-labels-2"])
    def test_a_foreign_name_is_refused(self, name):
        with pytest.raises(DataError, match="does not name a draw of labels; expected no-labels"):
            Labels.parse(name)

    def test_amounts_out_of_range_are_refused(self):
        with pytest.raises(DataError, match="0 shots per class were asked for; give whole numbers"):
            Labels.shots(0)
        with pytest.raises(DataError, match="-3 labels were asked for"):
            Labels.count(-3)
        with pytest.raises(DataError, match=r"--holdout is 1.5; give a share above 0, up to 1"):
            Labels.holdout(1.5)
        for amount in (float("nan"), float("inf")):
            with pytest.raises(DataError, match="were asked for; give whole numbers from 1"):
                Labels("shots", amount)

    def test_a_large_amount_is_spelled_in_full(self):
        which = Labels.count(1_234_567)
        assert which.name == "1234567-labels-seed-0"
        assert Labels.options([which]) == {"count": "1234567", "seeds": "1"}

    def test_shots_and_all_labels_are_one_option(self):
        several = [Labels.all(seed=1), Labels.none(), Labels.shots(4), Labels.shots(1, seed=2)]
        assert Labels.options(several, zero=True) == {"shots": "0,1,4,all", "seeds": "3"}
        assert Labels.options([Labels.all(), Labels.none()], zero=True) == {
            "shots": "0,all",
            "seeds": "1",
        }
        # A count and a hold-out are options of their own.
        mixed = [Labels.count(30), Labels.shots(2), Labels.holdout(0.1)]
        assert Labels.options(mixed) == {"shots": "2", "seeds": "1"}

    @given(labels_of_any_kind)
    def test_options_draw_the_same_labels(self, which):
        options = Labels.options([which])
        if which.kind == "none":
            assert options == {}
            return
        assert int(options.pop("seeds")) == which.seed + 1
        asked = labels_of(
            shots=options.pop("shots", ""),
            count=options.pop("count", ""),
            holdout=float(options.pop("holdout")) if "holdout" in options else None,
        )
        assert [replace(one, seed=which.seed) for one in asked] == [which]
        assert not options


@pytest.mark.parametrize(
    "which", [Labels.shots(3), Labels.shots(9), Labels.count(20), Labels.holdout(0.3), Labels.all()]
)
def test_two_draws_share_as_much_as_is_said(which):
    labels = np.repeat(np.arange(3), [5, 20, 35])
    names = [f"{row}.png" for row in range(60)]
    draws = [
        set(replace(which, seed=seed).draw(labels, names, classes=3).rows) for seed in range(300)
    ]
    shared = [len(a & b) / len(a) for a, b in pairwise(draws)]
    assert np.mean(shared) == pytest.approx(which.shared(labels), abs=0.02)
