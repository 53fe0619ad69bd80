"""Whether what a file was made from is still what it was.

A key's `inputs` name files below the store, and parts of files as `path#part`: a split of a logit
file, or the fit of one combiner. So a fit does not depend on the test split of the file that it
learnt from.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from clipnlc.combiners import COMBINERS
from clipnlc.commands import command
from clipnlc.errors import StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.finding import (
    DEFAULT_HOLDOUT,
    Runs,
    labelled_split,
    may_be_unlabelled,
    usual_teacher,
)
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.fits import read_fit_header, read_fits
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, Location, locate
from clipnlc.stores.logits import read_class_names, read_logit_header

PART = "#"

_HEAD_OPTIONS: Final = {
    "holdout": "holdout",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "batch_size": "batch_size",
    "stopping_share": "early_stopping",
    "seed": "seed",
}
"""What shapes a head and has an option of `train-heads`."""


_PROPORTIONS: Final = "proportions"

Declared = str | list[float] | None
"""What a fit was told of how common the classes are: `train-nlc --class-proportions`."""


@dataclass
class Present:
    """The digests of a store's files as they are now, each file's header read once.

    Attributes:
        layout: the store.
    """

    layout: Layout
    _digests: dict[str, dict[str, str]] = field(default_factory=dict)
    _keys: dict[str, Key] = field(default_factory=dict)

    def digest(self, name: str) -> str | None:
        """Return the digest of a file, or of a part of it; None where there is no such file.

        Raises:
            StoreError: the file is damaged.
        """
        path, _, part = name.partition(PART)
        found = self._parts(path)
        return found.get(part, "") if found else None

    def changed(self, inputs: Mapping[str, str]) -> set[str]:
        """Return the inputs that have another digest now.

        A deleted input leaves what was made from it as true as before.
        """
        return {name for name, digest in inputs.items() if self.digest(name) not in (digest, None)}

    def key(self, name: str) -> Key | None:
        """Return the key of a feature or logit file; None if the file does not exist."""
        self._parts(name)
        return self._keys.get(name)

    def _parts(self, name: str) -> dict[str, str]:
        """Return the digests of a file's parts; the whole file is the part without a name."""
        if name not in self._digests:
            self._digests[name] = self._read(name)
        return self._digests[name]

    def _read(self, name: str) -> dict[str, str]:
        path = self.layout.root / name
        place = locate(path)
        if place is None or not path.exists():
            return {}
        if place.kind == "features":
            features = read_feature_header(path)
            self._keys[name] = features.key
            return {"": features.digest}
        if place.kind == "logits":
            logits = read_logit_header(path)
            self._keys[name] = logits.key
            return {"": logits.digest, **logits.split_digests}
        if place.kind in ("fits", "combined"):
            fits = read_fit_header(path)
            return {"": fits.digest, **fits.digests}
        return {}


def refuse_stale_logits(present: Present, names: Iterable[str]) -> None:
    """Check that the features behind logit files are what they were made from.

    Raises:
        StoreError: names the file, what has changed, and the command that makes all alike again.
    """
    cures: dict[str, list[Location]] = {}
    first = ""
    for name in names:
        key, place = present.key(name), locate(present.layout.root / name)
        since = present.changed(key.inputs) if key is not None else set()
        if since and key is not None and place is not None and place.backbone is not None:
            first = first or f"{name} is stale: {min(since)} has changed since"
            cures.setdefault(_remake_logits(place, key), []).append(place)
    if first:
        stage, places = next(iter(cures.items()))
        cure = command(
            stage,
            backbones=list(dict.fromkeys(place.backbone for place in places if place.backbone)),
            store=present.layout.root,
            **Labels.options([Labels.parse(place.run) for place in places if place.run], zero=True),
        )
        raise StoreError(f"{first}; run `{cure}`")


def _remake_logits(place: Location, key: Key) -> str:
    """Spell the stage that makes a logit file again, with its settings; no backbones, no draws."""
    if place.head is None or place.head == "zero-shot":
        return command("extract", dataset=place.dataset).removeprefix("clipnlc ")
    usual = {"holdout": DEFAULT_HOLDOUT, **HEADS.get(place.head)().settings()}
    made = {**usual, **key.fields.get("settings", {}), **key.fields}
    options = {
        option: f"{made[name]}"
        for name, option in _HEAD_OPTIONS.items()
        if name in usual and made[name] != usual[name]
    }
    if place.run:
        options.pop("seed", None)  # of a run it is its draw's
        teacher = key.fields.get("teacher", {}).get("combiner")
        if teacher and teacher != usual_teacher(Labels.parse(place.run)):
            options["teacher"] = teacher
    stage = command("train-heads", dataset=place.dataset, head=place.head, store=None, **options)
    return stage.removeprefix("clipnlc ")


def refuse_stale_runs(
    present: Present, runs: Runs, combiners: Mapping[str, Iterable[str]] | None = None
) -> None:
    """Check that logits are current, and no input of any run, or of its inputs, has changed since.

    Args:
        present: the store as it is.
        runs: what is checked.
        combiners: only these runs, and of each only these combiners; all by default.

    Raises:
        StoreError: says what is stale since what has changed, and the command that makes it again
            or, where it cannot be made again, removes it.
    """
    layout = present.layout
    wanted = combiners or {run: header.keys for run, header in runs.headers.items()}
    inputs = {n for run in wanted for name in wanted[run] for n in _inputs(runs, run, name)}
    logits = {layout.relative(path) for path in runs.all_logits(layout, wanted)}
    refuse_stale_logits(present, sorted({n.partition(PART)[0] for n in inputs} | logits))
    stale: dict[str, dict[str, set[str]]] = {}
    for run, names in wanted.items():
        causes = {name: _causes(present, runs, run, name) for name in names}
        if any(causes.values()):
            stale[run] = {name: cause for name, cause in causes.items() if cause}
    lost = [run for run in stale if not _can_be_made(present, runs, run, stale[run])]
    chosen = [run for run in stale if run not in lost] or lost
    if not chosen:
        return
    reasons = sorted({cause for run in chosen for each in stale[run].values() for cause in each})
    first, others = layout.relative(runs.paths[chosen[0]]), len(chosen) - 1
    which = f"{first} and {others} more runs are" if others else f"{first} is"
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    found = f"{which} stale: {reasons[0]}{more}"
    if chosen == lost:
        raise StoreError(
            f"{found}; it cannot be made again without a {labelled_split(runs.head)} split and its "
            f"combiners: run `{_removal(runs, lost)}` to go on without it"
        )
    declared, fitted = _declared_alike(runs, {run: stale[run] for run in chosen})
    # The file that proportions came from is not known.
    from_file = isinstance(declared, list)
    cure = command(
        "train-nlc --class-proportions …" if from_file else "train-nlc",
        dataset=runs.dataset,
        head=runs.head,
        backbones=runs.backbones,
        combiners=[name for name in COMBINERS if any(name in each for each in fitted.values())],
        store=layout.root,
        **Labels.options([Labels.parse(run) for run in fitted], zero=may_be_unlabelled(runs.head)),
        class_proportions=declared if isinstance(declared, str) else None,
    )
    which = ", with the file of proportions that was given before" if from_file else ""
    raise StoreError(f"{found}; run `{cure}`{which}")


def _declared_alike(
    runs: Runs, stale: Mapping[str, Iterable[str]]
) -> tuple[Declared, dict[str, list[str]]]:
    """Return what one command declares of the classes, and which fits, by run, it makes again.

    A command declares one thing. Those without come first: they may make the fits without labels
    again, which then are made again as they were.
    """
    declared: dict[tuple[str, str], Declared] = {}
    for run, names in stale.items():
        for name in names:
            settings = runs.headers[run].keys[name].fields.get("settings", {})
            if _PROPORTIONS in settings:
                declared[run, name] = settings[_PROPORTIONS]
    of_labels = [value for (run, _), value in declared.items() if run != Labels.none().name]
    found = of_labels or list(declared.values())
    chosen = None if None in found or not found else found[0]

    fits = {}
    for run, names in stale.items():
        # A run without labels has no proportions of labels, so it is as if not declared.
        as_without = chosen == "labels" and run == Labels.none().name
        alike = (chosen, None) if as_without else (chosen,)
        told = [name for name in names if (run, name) in declared]
        others = [name for name in told if declared[run, name] not in alike]
        if not told or len(others) < len(told):
            fits[run] = [name for name in names if name not in others]
    return chosen, fits


def _inputs(runs: Runs, run: str, combiner: str) -> Mapping[str, str]:
    return runs.headers[run].keys[combiner].inputs


def _causes(present: Present, runs: Runs, run: str, combiner: str) -> set[str]:
    """Say what a fit was made from and is no more; nothing of one that is current.

    Without its inputs it is as true as before, as long as the classes are the same.
    """
    inputs = _inputs(runs, run, combiner)
    changed = {
        f"{name} {'has changed since' if present.digest(name) else 'is no longer there'}"
        for name in present.changed(inputs)
    }
    if changed or (inputs and all(present.digest(name) is not None for name in inputs)):
        return changed
    path = runs.logits(present.layout, runs.backbones[0], run)
    if not path.exists():
        return set()
    now = Counter(read_class_names(path))
    fitted = Counter(read_fits(runs.paths[run], ()).class_names)
    return set() if now == fitted else {f"{present.layout.relative(path)} has other class names"}


def _can_be_made(present: Present, runs: Runs, run: str, combiners: Iterable[str]) -> bool:
    """Return whether `train-nlc` can fit these combiners of a run again."""
    if any(name not in COMBINERS for name in combiners):
        return False
    if not any(COMBINERS.get(name).learnt for name in combiners):
        return True  # of names alone
    layout, split = present.layout, labelled_split(runs.head)
    paths = runs.all_logits(layout, [run])
    # Where a file has gone, the stage before says how to make it.
    return all(split in read_logit_header(path).rows for path in paths if path.exists())


def _removal(runs: Runs, lost: Sequence[str]) -> str:
    """Spell the command that removes the files of runs, all of a folder together."""
    paths = [runs.paths[run] for run in lost]
    folder = paths[0].parent
    if {path.resolve() for path in folder.glob("*.h5")} == {path.resolve() for path in paths}:
        paths = [folder]
    return shlex.join(["rm", "-r", *map(str, paths)])
