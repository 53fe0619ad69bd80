"""The heads of an ensemble, built again from a store, and the logits that they make of features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.heads import HEADS, Head
from clipnlc.runs.fitted import UNFIT
from clipnlc.stores.features import read_feature_columns
from clipnlc.stores.key import Key
from clipnlc.stores.layout import IMPORTED, Layout
from clipnlc.stores.logits import LogitFit, read_logit_fit


@dataclass(frozen=True)
class Heads:
    """One fitted head per backbone, all for the same classes.

    Attributes:
        name: of the family, in `HEADS`.
        backbones: one per head.
        class_names: in the order of the heads' logits.
        heads: fitted.
        inputs: the files that they were read from: name in the store -> digest.
    """

    name: str
    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    heads: tuple[Head, ...]
    inputs: Mapping[str, str]

    def ensemble(
        self,
        features: Sequence[Float[np.ndarray, "samples _"]],
        sample_id: Sequence[str],
        *,
        classes: Int[np.ndarray, " classes"] | None = None,
    ) -> Ensemble:
        """Make the named ensemble of some features, one array per head.

        Args:
            features: as the backbones gave them.
            sample_id: one identifier per row.
            classes: the order of the classes in the ensemble; by default that of the heads.
        """
        order = np.arange(len(self.class_names)) if classes is None else classes
        logits = np.empty((len(self.heads), len(sample_id), len(order)), dtype=np.float32)
        for number, (head, given) in enumerate(zip(self.heads, features, strict=True)):
            logits[number] = _logits(self, number, head, given)[:, order]
        return Ensemble(
            logits=logits,
            features=tuple(f.astype(np.float32, copy=False) for f in features),
            sample_id=tuple(sample_id),
            backbones=self.backbones,
            class_names=tuple(self.class_names[c] for c in order),
        )


def _logits(
    heads: Heads, number: int, head: Head, features: Float[np.ndarray, "samples _"]
) -> Float[np.ndarray, "samples classes"]:
    """Return the finite logits of one head.

    Raises:
        StoreError: what it learnt does not belong to these features or classes.
    """
    problem = "it does not give finite logits of every class"
    try:
        logits: np.ndarray = head.logits(features)
        if logits.shape == (len(features), len(heads.class_names)) and np.isfinite(logits).all():
            return logits
    except UNFIT as error:
        problem = " ".join(str(error).split())[:200]
    raise StoreError(
        f"the {heads.name} head of {heads.backbones[number]} cannot be applied: {problem}; delete "
        "its file of logits and run its stage again"
    )


def open_heads(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str], run: str | None = None
) -> Heads:
    """Build the heads of a data set again, from name, settings and learnt arrays.

    Args:
        layout: the store.
        dataset: what they were fitted on.
        head: their name.
        backbones: one head each.
        run: the labels that heads which are fitted per draw were fitted on.

    Raises:
        DataError: a backbone came with logits, and has no head.
        MissingStageError: there are no logits of this head.
        StoreError: heads are of different classes; a file is damaged.
    """
    found = {}
    inputs = {}
    for backbone in backbones:
        path = layout.logits(dataset, head, backbone, run)
        found[backbone] = read_logit_fit(path)
        inputs[layout.relative(path)] = found[backbone].digest
    first, *others = found.values()
    for backbone, other in zip(backbones[1:], others, strict=True):
        if other.class_names != first.class_names:
            raise StoreError(
                f"the {head} heads of {backbones[0]} and {backbone} on {dataset} know different "
                "classes; extract the data set again for both"
            )
    return Heads(
        name=head,
        backbones=tuple(backbones),
        class_names=first.class_names,
        heads=tuple(_rebuilt(layout, dataset, head, b, fit, run) for b, fit in found.items()),
        inputs=inputs,
    )


def _rebuilt(  # noqa: PLR0917  (what names one file)
    layout: Layout, dataset: str, head: str, backbone: str, fit: LogitFit, run: str | None
) -> Head:
    cls: type[Head] = HEADS.get(head)
    if fit.learnt:
        # Version 1 named no settings; what a fitted head answers does not depend on them.
        try:
            return cls.rebuild(fit.key.fields.get("settings", {}), fit.learnt)
        except ValueError as error:
            path = layout.logits(dataset, head, backbone, run)
            raise StoreError(
                f"the head in {path} cannot be built again: {error}; delete the file and run its "
                "stage again"
            ) from error
    if fit.key.fields.get("part") == IMPORTED:
        raise DataError(
            f"{backbone} came with logits of the images of {dataset}, and nothing makes them of other "
            "images; expected backbones with heads: fit the others alone, and name them with "
            "--backbones"
        )
    # Version 1 kept no arrays of zero-shot heads: they are the texts beside the features.
    for split in layout.splits(dataset):
        path = layout.features(dataset, split, backbone)
        if path.is_file():
            columns = read_feature_columns(path)
            if columns.texts is None or columns.logit_scale is None:
                raise StoreError(
                    f"{path} holds no texts, so {backbone} has no {head} head; delete "
                    f"{layout.logits(dataset, head, backbone, run)}, and choose --head auto"
                )
            return cls().fit_to_texts(
                texts=columns.texts,
                logit_scale=columns.logit_scale,
                logit_bias=columns.logit_bias,
            )
    raise MissingStageError(
        f"{layout.root} holds no features of {backbone} on {dataset} to take the texts from; "
        "extract the data set again"
    )


def current_key(key: Key) -> Key:
    """Return a key as it is spelled now: settings of linear heads used to stand in it one by one.

    They are then compared by what they are, and heads with the same settings stay.
    """
    fields = key.fields
    before = {"early_stopping", "seed", "epochs", "learning_rate", "batch_size"}
    if not before <= fields.keys():
        return key
    old = {name: fields.pop(name) for name in before}
    # The patience could not be set.
    fields["settings"] = {**old, "stopping_share": old["early_stopping"], "patience": 20}
    del fields["settings"]["early_stopping"]
    return Key.of(fields)
