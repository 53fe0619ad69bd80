"""Why a combiner cannot run on an ensemble: what it reads, and which backbones lack it.

One that reads features takes those of the backbones that have any.
"""

from collections.abc import Callable, Sequence

from clipnlc.backbones.families import family, family_of
from clipnlc.combiners import COMBINERS
from clipnlc.commands import is_own_name
from clipnlc.ensemble import Ensemble
from clipnlc.errors import DataError
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout
from clipnlc.wording import SHOWN


def without_features(ensemble: Ensemble) -> tuple[str, ...]:
    """Return the backbones that have no features; all where the ensemble was opened without.

    Width 0 stands for none.
    """
    if not ensemble.features:
        return ensemble.backbones
    named = zip(ensemble.backbones, ensemble.features, strict=True)
    return tuple(name for name, features in named if not features.shape[1])


def why_not(combiner: str, ensemble: Ensemble) -> str | None:
    """Say why a combiner cannot run on an ensemble; None where it can.

    Raises:
        UnknownNameError: no combiner has this name.
    """
    cls = COMBINERS.get(combiner)
    if cls.needs_features and len(without_features(ensemble)) == len(ensemble.logits):
        return lacks_features(combiner, ensemble.backbones)
    if cls.needs_costs and not ensemble.gflops:
        return lacks_costs(combiner, ensemble.backbones)
    return None


def able_to_fit(
    layout: Layout,
    dataset: str,
    backbones: Sequence[str],
    combiners: Sequence[str],
    tell: Callable[[str], None],
) -> tuple[str, ...]:
    """Return the combiners that can run on the backbones of a data set in a store.

    Only imported backbones are looked at, and those of families whose names do not tell costs: of others,
    features are made and costs are known.

    Args:
        layout: the store.
        dataset: whose train split is learnt from.
        backbones: the ensemble.
        combiners: those that are wanted.
        tell: called with why one cannot.

    Raises:
        DataError: none can.
        StoreError: a file is damaged.
        UnknownNameError: no combiner has this name.
    """
    own = [
        name for name in backbones if is_own_name(name) or not family(family_of(name)).costs_by_name
    ]
    bare = own and all(_gives_logits_alone(layout, dataset, name) for name in backbones)
    why: dict[str, str] = {}
    for name in combiners if own else ():
        if bare and COMBINERS.get(name).needs_features:
            why[name] = lacks_features(name, backbones)
        elif COMBINERS.get(name).needs_costs:
            why[name] = lacks_costs(name, own)
    found = tuple(name for name in combiners if name not in why)
    if combiners and not found:
        raise DataError(f"{next(iter(why.values()))}; choose others, as --combiners parameter-free")
    for reason in why.values():
        tell(f"{dataset}: {reason}")
    return found


def _gives_logits_alone(layout: Layout, dataset: str, backbone: str) -> bool:
    path = layout.features(dataset, "train", backbone)
    return path.is_file() and not read_feature_header(path).dim


def lacks_features(combiner: str, lacking: Sequence[str]) -> str:
    """Say that a combiner reads features, and who has none: all of an ensemble."""
    return (
        f"{combiner} reads features, and {_listed(lacking)} "
        f"{'has' if len(lacking) == 1 else 'have'} logits alone"
    )


def lacks_costs(combiner: str, lacking: Sequence[str]) -> str:
    """Say that a combiner reads what backbones cost, and of whom it is not known."""
    cost = "costs" if len(lacking) == 1 else "cost"
    return f"{combiner} starts with the cheapest backbone, and what {_listed(lacking)} {cost} is not known"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:SHOWN], *([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
