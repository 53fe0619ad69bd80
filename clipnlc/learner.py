"""What every head and combiner is: settings, learnt arrays, and a way to be built again of them."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np

_Learner = TypeVar("_Learner", bound="Learner")


class Learner:
    """Something with settings and learnt arrays, which travel as plain arrays.

    `__init__` stores settings under their own names and nothing else; learnt arrays have names
    ending in `_`. Name, settings and arrays are all that is needed to build it again.

    Attributes:
        learnt: the names of the learnt arrays.
        keeps_features: learnt arrays contain features of images that were learnt from; who is given
            them should know.
        seed: of whatever is random in learning.
    """

    learnt: ClassVar[tuple[str, ...]] = ()
    keeps_features: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        """Return every setting by name, defaults included, sorted; learnt values are left out."""
        return {k: v for k, v in sorted(vars(self).items()) if not k.endswith("_")}

    @classmethod
    def rebuild(  # noqa: PYI019  (see load_state)
        cls: type[_Learner], settings: Mapping[str, Any], state: Mapping[str, np.ndarray]
    ) -> _Learner:
        """Build again what had these settings and had learnt these arrays.

        Raises:
            ValueError: a setting is not known, or `state` does not hold exactly this class's arrays.
        """
        try:
            return cls(**settings).load_state(state)
        except TypeError as error:
            raise ValueError(f"{cls.__name__} does not take these settings: {error}") from error

    def state(self) -> dict[str, np.ndarray]:
        """Return what was learnt, by name; the settings are not among it.

        Raises:
            ValueError: not fitted.
        """
        self.require_fitted()
        return {name: np.array(getattr(self, name)) for name in self.learnt}

    def load_state(self: _Learner, state: Mapping[str, np.ndarray]) -> _Learner:  # noqa: PYI019  (the type checker of the tests cannot resolve Self)
        """Take over what another object of this class, with the same settings, had learnt.

        Raises:
            ValueError: `state` does not hold exactly this class's arrays.
        """
        if set(state) != set(self.learnt):
            raise ValueError(
                f"{type(self).__name__} learns {sorted(self.learnt)}, the state has {sorted(state)}"
            )
        for name in self.learnt:
            setattr(self, name, np.array(state[name]))
        return self

    def forget(self) -> None:
        """Drop what was learnt."""
        for name in self.learnt:
            self.__dict__.pop(name, None)

    def require_fitted(self) -> None:
        """Check that everything in `learnt` is there.

        Raises:
            ValueError: it is not.
        """
        if not all(name in self.__dict__ for name in self.learnt):
            raise ValueError(
                f"{type(self).__name__} is not fitted; call fit or load_state before using it"
            )
