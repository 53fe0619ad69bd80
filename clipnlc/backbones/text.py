"""Prompts to embeddings, in batches cut to their longest prompt.

A prompt is padded to 77 tokens, of which "a photo of a cat." takes eight. In a causal text tower
that reads the embedding off the end token, no token up to that one sees what follows it, so the
padding behind the longest prompt of a batch can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32, Int64

if TYPE_CHECKING:
    from torch import Tensor, nn

OnProgress = Callable[[int, int], None]

# A batch of a CPU should stay in its cache: 16,384 tokens take twice as long there (measured).
_TOKENS_AT_ONCE_ON_CPU: Final = 1024
_TOKENS_AT_ONCE: Final = 16384
_TOKENIZED_AT_ONCE: Final = 4096
_PROMPTS_CHECKED: Final = 8


@dataclass(frozen=True)
class _EndToken:
    """How a causal tower finds the token it reads the embedding off.

    Attributes:
        tower: name of the module that holds the positional table and the mask, with its dot.
        eos: the end token; `None` where it is the highest token of the vocabulary.
    """

    tower: str
    eos: int | None

    def lengths(
        self, tokens: Int64[np.ndarray, "prompts context"]
    ) -> Int64[np.ndarray, " prompts"]:
        """Count the tokens up to and with the end token."""
        ends = tokens if self.eos is None else tokens == self.eos
        found: np.ndarray = ends.argmax(axis=1) + 1
        return found


class TextTower:
    """The text tower of a loaded model. Thread-safe, one thread at a time.

    Attributes:
        cuts: whether batches are cut to their longest prompt. Only causal towers that read off the
            end token can be; the first prompts are embedded in full length as well, and where that
            differs by more than rounding, nothing is cut.
    """

    def __init__(self, model: Any, tokenize: Any, *, device: str, full_precision: bool) -> None:  # noqa: ANN401
        self._model, self._tokenize, self._device = model, tokenize, device
        # Distance of unit vectors, so the cosine is over 1 - distance²/2: 0.999999995 and 0.9998.
        self._tolerance = 1e-4 if full_precision else 2e-2
        self._tokens_at_once = _TOKENS_AT_ONCE_ON_CPU if device == "cpu" else _TOKENS_AT_ONCE
        self._end = _end_token(model)
        self.cuts = self._end is not None
        self._checked = False
        self._encoder = _encoder(model)
        self._lock = Lock()  # a cut batch swaps the positional table while it runs

    def embed(
        self, prompts: Sequence[str], *, on_progress: OnProgress | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, " rows"], Float32[np.ndarray, "rows dim"]]]:
        """Embed sentences, short ones first; yields which ones and their L2-normalised embeddings.

        Args:
            prompts: the sentences.
            on_progress: called with the number of sentences done and of all.
        """
        tokens = self._tokens(prompts)
        self._check(tokens)
        lengths = self._lengths(tokens)
        order = np.argsort(lengths, kind="stable")
        for start, stop in _batches(lengths[order], self._tokens_at_once):
            rows = order[start:stop]
            yield rows, self._encode(tokens[rows, : lengths[rows[-1]]])
            if on_progress is not None:
                on_progress(stop, len(order))

    def _tokens(self, prompts: Sequence[str]) -> Int64[np.ndarray, "prompts context"]:
        parts = [
            self._tokenize(list(prompts[i : i + _TOKENIZED_AT_ONCE])).numpy()
            for i in range(0, len(prompts), _TOKENIZED_AT_ONCE)
        ]
        return np.concatenate(parts).astype(np.int64)

    def _lengths(
        self, tokens: Int64[np.ndarray, "prompts context"]
    ) -> Int64[np.ndarray, " prompts"]:
        if self._end is not None and self.cuts:
            return self._end.lengths(tokens)
        return np.full(len(tokens), tokens.shape[1])

    def _check(self, tokens: Int64[np.ndarray, "prompts context"]) -> None:
        """Compare some prompts of different lengths, each cut to its own, with full length."""
        if self._checked or not self.cuts:
            return
        lengths = self._lengths(tokens)
        order = np.argsort(lengths, kind="stable")
        some = order[np.linspace(0, len(order) - 1, _PROMPTS_CHECKED).astype(int)]
        cut = np.concatenate([self._encode(tokens[[i], : lengths[i]]) for i in some])
        distance = np.linalg.norm(cut - self._encode(tokens[some]), axis=1)
        self.cuts = bool(distance.max() < self._tolerance)
        self._checked = True

    def _encode(
        self, tokens: Int64[np.ndarray, "prompts length"]
    ) -> Float32[np.ndarray, "prompts dim"]:
        import torch
        from torch.func import functional_call
        from torch.nn.functional import normalize

        with self._lock, torch.inference_mode():
            given = torch.from_numpy(tokens).to(self._device)
            swapped = self._sliced(tokens.shape[1])
            found: Tensor = functional_call(self._encoder, swapped, given, tie_weights=False)
            # Half precision would leave the lengths a fifth of a percent off.
            return normalize(found.float(), dim=-1).cpu().numpy()

    def _sliced(self, length: int) -> dict[str, Tensor]:
        """Return the positional table and the mask as a batch of this length needs them.

        open_clip's plain CLIP adds its whole table, and both of its forms take the whole mask.
        """
        if self._end is None:
            return {}
        tower = self._model.get_submodule(self._end.tower)
        prefix = f"model.{self._end.tower}." if self._end.tower else "model."
        return {
            f"{prefix}positional_embedding": tower.positional_embedding[:length],
            f"{prefix}attn_mask": tower.attn_mask[:length, :length],
        }


def _batches(
    lengths: Int64[np.ndarray, " prompts"], tokens_at_once: int
) -> Iterator[tuple[int, int]]:
    """Cut sorted prompts into batches of at most so many tokens, the padding included.

    A prompt that is longer than that is a batch of its own.

    >>> list(_batches(np.array([3, 4, 6, 7, 11]), 10))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    start = 0
    while start < len(lengths):
        rest = lengths[start:]
        tokens = rest * np.arange(1, len(rest) + 1)
        stop = start + max(1, int(np.searchsorted(tokens, tokens_at_once, side="right")))
        yield start, stop
        start = stop


def _end_token(model: Any) -> _EndToken | None:  # noqa: ANN401
    """Return how a causal tower finds its end token; `None` for every other kind."""
    from open_clip.model import CLIP
    from open_clip.transformer import TextTransformer

    if isinstance(model, CLIP):
        tower, causal, pooling, eos = "", model.attn_mask, model.text_pool_type, model.text_eos_id
    elif isinstance(text := getattr(model, "text", None), TextTransformer) and text.cls_emb is None:
        tower, causal, pooling, eos = "text", text.attn_mask, text.pool_type, text.eos_id
    else:
        return None
    if causal is None or pooling not in ("argmax", "eos"):
        return None
    return _EndToken(tower, eos if pooling == "eos" else None)


def _encoder(model: Any) -> nn.Module:  # noqa: ANN401
    """Make a module whose call is open_clip's `encode_text`."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.model.encode_text(tokens, normalize=False)
            return found

    return Encoder()
