"""The steps that train a linear head: in numpy, or in torch on a CPU or a GPU."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.errors import DataError
from clipnlc.fitting import Adam, cross_entropy, cross_entropy_gradient

DEVICES = ("", "cpu", "cuda")
"""Where steps are computed: numpy, or torch on the CPU or on the first GPU."""


@dataclass(frozen=True)
class Affine:
    """`scale * f W^T + b`."""

    weight: Float[np.ndarray, "classes dim"]
    bias: Float[np.ndarray, " classes"]
    scale: float

    def copy(self) -> "Affine":
        """Return one with arrays of its own."""
        return Affine(self.weight.copy(), self.bias.copy(), self.scale)

    def logits(self, unit: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows classes"]:
        """Return the logits of features of length 1."""
        logits: np.ndarray = unit @ self.weight.T
        logits *= self.scale
        logits += self.bias
        return logits


class Trainer(ABC):
    """Adam on the mean cross-entropy of the rows that each step is given."""

    @abstractmethod
    def step(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Move the weights one step."""

    @abstractmethod
    def loss(self, rows: Int[np.ndarray, " rows"]) -> float:
        """Return the mean cross-entropy of these rows, in nats."""

    @abstractmethod
    def model(self) -> Affine:
        """Return a copy of the weights as they are now."""


class NumpyTrainer(Trainer):
    """The steps in numpy."""

    def __init__(
        self,
        start: Affine,
        unit: Float[np.ndarray, "samples dim"],
        labels: Int[np.ndarray, " samples"],
        *,
        learning_rate: float,
    ) -> None:
        self._model, self._unit, self._labels = start.copy(), unit, labels
        self._adam = Adam([self._model.weight, self._model.bias], learning_rate=learning_rate)

    def step(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Move the weights one step."""
        unit, model = self._unit[rows], self._model
        by_logits = cross_entropy_gradient(model.logits(unit), self._labels[rows])
        self._adam.step([model.scale * (by_logits.T @ unit), by_logits.sum(axis=0)])

    def loss(self, rows: Int[np.ndarray, " rows"]) -> float:
        """Return the mean cross-entropy of these rows."""
        return cross_entropy(self._model.logits(self._unit[rows]), self._labels[rows])

    def model(self) -> Affine:
        """Return a copy of the weights."""
        return self._model.copy()


class TorchTrainer(Trainer):
    """The same steps in torch, on its device; they agree with numpy's but for rounding.

    Raises:
        DataError: there is no GPU that torch can use.
    """

    def __init__(
        self,
        start: Affine,
        unit: Float[np.ndarray, "samples dim"],
        labels: Int[np.ndarray, " samples"],
        *,
        learning_rate: float,
        device: str,
    ) -> None:
        import torch  # noqa: PLC0415  (seconds that the numpy path can spare)

        if device == "cuda" and not torch.cuda.is_available():
            raise DataError(
                "--device is cuda, and torch finds no GPU that it can use here; give --device cpu, or "
                "leave it out for numpy"
            )
        self._scale, self._device = start.scale, torch.device(device)
        self._unit, self._labels, self._weight, self._bias = (
            torch.tensor(array, device=self._device)
            for array in (unit, labels.astype(np.int64), start.weight, start.bias)
        )
        self._adam = torch.optim.Adam([self._weight, self._bias], lr=learning_rate)

    def step(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Move the weights one step."""
        import torch  # noqa: PLC0415

        with _one_thread():
            chosen = torch.from_numpy(rows).to(self._device)
            unit, labels = self._unit[chosen], self._labels[chosen]
            by_logits = torch.softmax(self._scale * (unit @ self._weight.T) + self._bias, dim=1)
            by_logits[torch.arange(len(labels), device=self._device), labels] -= 1
            by_logits /= len(labels)
            self._weight.grad = self._scale * (by_logits.T @ unit)
            self._bias.grad = by_logits.sum(dim=0)
            self._adam.step()

    def loss(self, rows: Int[np.ndarray, " rows"]) -> float:
        """Return the mean cross-entropy of these rows."""
        import torch  # noqa: PLC0415

        with _one_thread():
            chosen = torch.from_numpy(rows).to(self._device)
            logits = self._scale * (self._unit[chosen] @ self._weight.T) + self._bias
            found = torch.nn.functional.cross_entropy(logits.double(), self._labels[chosen])
            return float(found)

    def model(self) -> Affine:
        """Return a copy of the weights."""
        weight, bias = (array.cpu().numpy().copy() for array in (self._weight, self._bias))
        return Affine(weight, bias, self._scale)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread: the last bits of a sum depend on how many share it."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
