"""Why a combiner cannot run on an ensemble: what it reads, and which backbones lack it."""

from collections.abc import Sequence

from clipnlc.combiners import COMBINERS
from clipnlc.ensemble import Ensemble
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
    if cls.needs_features and (lacking := without_features(ensemble)):
        return lacks_features(combiner, lacking)
    if cls.needs_costs and not ensemble.gflops:
        return (
            f"{combiner} starts with the cheapest backbone, and what they cost is not known for "
            "own arrays"
        )
    return None


def lacks_features(combiner: str, lacking: Sequence[str]) -> str:
    """Say that a combiner reads features, and who has none."""
    return (
        f"{combiner} reads the features of every backbone, and {_listed(lacking)} "
        f"{'has' if len(lacking) == 1 else 'have'} logits alone"
    )


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:SHOWN], *([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
