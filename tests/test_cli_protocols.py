"""`--protocol`: the paper's three, spelled as one word."""

import json
import shutil
from shlex import split as words

import pytest
from command_line import good, refusal


def fits(store):
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("fits/*/*/*.h5"))


QUICK = ("--combiners", "log-avg,static", "--seeds", 1)


@pytest.mark.parametrize(
    ("protocol", "spelled"),
    [
        ("zero-shot", ("--holdout", 0.1)),
        ("few-shot", ("--shots", "1,2,4,8,16,32")),
        ("few-shot --shots 1,all", ("--shots", "1,all")),
    ],
)
def test_stands_for_the_options(protocol, spelled, extracted, first_extracted, here):
    other = shutil.copytree(first_extracted, extracted.with_name("other"))
    said = json.loads(
        good(
            "train-nlc",
            "--protocol",
            *protocol.split(),
            *QUICK,
            "--json",
            "--store",
            extracted,
            by=here,
        )
    )
    wanted = json.loads(good("train-nlc", *spelled, *QUICK, "--json", "--store", other, by=here))
    assert said == wanted
    assert fits(extracted) == fits(other) != []


def test_linear_trains_heads_then_fits_on_the_rest(extracted, here):
    store = ("--store", extracted)
    said = good("train-heads", "--protocol", "linear", "--epochs", 1, *store, by=here)
    assert f"next: clipnlc train-nlc --head linear --holdout 1 {' '.join(map(str, store))}" in said
    good("train-nlc", "--protocol", "linear", *QUICK, *store, by=here)
    (found,) = json.loads(
        good("train-nlc", "--protocol", "linear", "--json", *QUICK, *store, by=here)
    )[-1:]
    assert found["which"] == {"kind": "holdout", "amount": 1.0, "seed": 0}
    here_and_there = [
        good("evaluate", *words, "--full", *store, by=here)
        for words in (("--protocol", "linear"), ("--head", "linear"))
    ]
    assert here_and_there[0].splitlines()[:20] == here_and_there[1].splitlines()[:20]


def columns(text):
    """Return the kinds of labels in the rows of a record, as JSON has it."""
    return {row["drawn"]["kind"] for one in json.loads(text)["datasets"] for row in one["rows"]}


def test_evaluate_shows_the_labels_of_the_protocol(extracted, here, tmp_path):
    store = ("--store", extracted)
    good("train-nlc", "--shots", "1,all", *QUICK, *store, by=here)
    lacking = refusal("evaluate", "--protocol", "zero-shot", *store, by=here)
    assert lacking == (
        f"error: {extracted} holds no fits of --protocol zero-shot; run `clipnlc train-nlc --protocol "
        f"zero-shot --store {extracted}` first"
    )
    good(*words(lacking.split("`")[1])[1:], *QUICK, by=here)
    everything = good("evaluate", "--json", *store, by=here)
    assert columns(everything) == {"none", "shots", "all", "holdout"}
    for protocol, kinds in (("zero-shot", {"holdout"}), ("few-shot", {"shots", "all"})):
        asked = ("evaluate", "--protocol", protocol, *store)
        assert columns(good(*asked, "--json", by=here)) == {"none", *kinds}
        compared = good(*asked, "--against", "log-avg", "--json", by=here)
        found = json.loads(compared)["datasets"][0]["rows"]
        assert {row["column"]["kind"] for row in found} == kinds
        csv = tmp_path / f"{protocol}.csv"
        said = good(*asked, "--csv", csv, by=here)
        assert f"everything: clipnlc evaluate --full --protocol {protocol} --store" in said
        assert ("holdout" in csv.read_text()) == ("holdout" in kinds)
    # Every run stays in the record of the store.
    assert good("evaluate", "--json", *store, by=here) == everything


def test_the_share_of_the_protocol_may_be_said_and_no_other_is_shown(extracted, here):
    store = ("--store", extracted)
    good("train-nlc", "--holdout", 0.3, *QUICK, *store, by=here)
    lacking = refusal("evaluate", "--protocol", "zero-shot", *store, by=here)
    assert "holds no fits of --protocol zero-shot" in lacking
    good("train-nlc", "--protocol", "zero-shot", "--holdout", 0.1, *QUICK, *store, by=here)
    found = json.loads(good("evaluate", "--protocol", "zero-shot", "--json", *store, by=here))
    drawn = [row["drawn"] for one in found["datasets"] for row in one["rows"]]
    assert {one["amount"] for one in drawn if one["kind"] == "holdout"} == {0.1}
    heads = ("train-heads", "--protocol", "linear", "--holdout", 0.1, "--epochs", 1)
    assert "heads trained" in good(*heads, *store, by=here)


def test_zero_shot_heads_are_there(extracted, here):
    said = good("train-heads", "--protocol", "zero-shot", "--store", extracted, by=here)
    assert said == (
        "no head is trained with --protocol zero-shot: extract has made zero-shot heads\n"
        f"next: clipnlc train-nlc --protocol zero-shot --store {extracted}\n"
    )
    few = ("--protocol", "few-shot", "--shots", "1,all", "--seeds", 2)
    said = good("train-heads", *few, "--store", extracted, by=here)
    assert f"next: clipnlc train-nlc {' '.join(map(str, few))} --store" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train-nlc --protocol linear --shots 4",
            "--protocol linear and --shots contradict each other; leave one of them out",
        ),
        (
            "train-nlc --protocol few-shot --holdout 0.1",
            "--protocol few-shot and --holdout contradict each other; leave one of them out",
        ),
        (
            "train-nlc --protocol zero-shot --count 30",
            "--protocol zero-shot and --count contradict each other; leave one of them out",
        ),
        (
            "train-heads --protocol linear --holdout 0.3",
            "--protocol linear and --holdout 0.3 contradict each other (its share is 0.1); leave one of them out",
        ),
        (
            "train-heads --protocol zero-shot --holdout 0.3",
            "--protocol zero-shot and --holdout 0.3 contradict each other (its share is 0.1); leave one of them out",
        ),
        (
            "train-nlc --protocol linear --holdout 0.1",
            "--protocol linear and --holdout 0.1 contradict each other (its share is 1); leave one of them out",
        ),
        (
            "train-nlc --protocol zero-shot --holdout 0.3",
            "--protocol zero-shot and --holdout 0.3 contradict each other (its share is 0.1); leave one of them out",
        ),
        (
            "evaluate --protocol zero-shot --head linear",
            "--protocol zero-shot is of zero-shot heads, and --head linear was given; leave one of them out",
        ),
        (
            "train-heads --protocol few",
            "unknown protocol 'few'; did you mean 'few-shot'? known: zero-shot, linear, few-shot",
        ),
    ],
)
def test_what_contradicts_it_is_refused(line, said, extracted, here):
    assert refusal(*line.split(), "--store", extracted, by=here) == f"error: {said}"


def test_few_shot_takes_heads_of_the_same_labels(extracted, here):
    store, head = ("--store", extracted), ("--head", "tip-adapter")
    few = ("--protocol", "few-shot", "--shots", "1", "--seeds", 1)
    good("train-heads", *few, *head, *store, by=here)
    good("train-nlc", *few, *head, "--combiners", "log-avg", *store, by=here)
    assert [name for name in fits(extracted) if "tip-adapter" in name]
