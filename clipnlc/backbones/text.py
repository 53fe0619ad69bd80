"""Prompts to embeddings, in batches cut to their longest prompt.

A prompt is padded to 77 tokens, of which "a photo of a cat." takes eight. In a causal text tower
that reads the embedding off the end token, no token up to that one sees what follows it, so the
padding behind the longest prompt of a batch can be left out.

A prompt with more tokens than the context is cut by open_clip's tokenizers without a word. OpenAI's
own `clip.tokenize` refuses it, and so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32, Int64

from clipnlc.errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor, nn

OnProgress = Callable[[int, int], None]

# A batch of a CPU should stay in its cache: 16,384 tokens take twice as long there (measured).
_TOKENS_AT_ONCE_ON_CPU: Final = 1024
_TOKENS_AT_ONCE: Final = 16384
_TOKENIZED_AT_ONCE: Final = 4096
_PROMPTS_CHECKED: Final = 8
_SPARE: Final = 2  # tokens more than the context, to see whether a prompt was cut
_BYTES: Final = 4  # no tokenizer makes more tokens of a byte


@dataclass(frozen=True)
class TooLong:
    """Prompts that have more tokens than the text tower reads.

    Attributes:
        prompts: how many.
        first: the place of the first of them.
        tokens: those of the first, start and end included.
        context: tokens that are read.
    """

    prompts: int
    first: int
    tokens: int
    context: int


OnLong = Callable[[TooLong], None]


@dataclass(frozen=True)
class EndToken:
    """How a causal tower finds the token it reads the embedding off.

    Attributes:
        tower: name of the module that holds the positional table and the mask, with its dot; `None`
            where the tower takes prompts of any length as they are.
        eos: the end token; `None` where it is the highest token of the vocabulary.
    """

    tower: str | None
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
        self,
        prompts: Sequence[str],
        *,
        on_long: OnLong | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[tuple[Int64[np.ndarray, " rows"], Float32[np.ndarray, "rows dim"]]]:
        """Embed sentences, short ones first; yields which ones and their L2-normalised embeddings.

        Args:
            prompts: the sentences.
            on_long: called if some are longer than the context; if it returns, they are cut.
                None raises.
            on_progress: called with the number of sentences done and of all.

        Raises:
            BackboneError: a sentence is longer than the context.
        """
        tokens = self._tokens(prompts)
        if long := self._too_long(prompts, tokens):
            if on_long is None:
                raise BackboneError(
                    f"the prompt {prompts[long.first]!r} has {long.tokens} tokens, and the text "
                    f"tower reads {long.context}; shorten it"
                )
            on_long(long)
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

    def _too_long(
        self, prompts: Sequence[str], tokens: Int64[np.ndarray, "prompts context"]
    ) -> TooLong | None:
        """Find the prompts that the tokenizer cut: only those that fill the context can be."""
        context = tokens.shape[1]
        pad = self._padded([""], context)[0, -1]
        full = np.flatnonzero(tokens[:, -2] != pad)  # SigLIP's end token is its padding as well
        if not len(full):
            return None
        longer = self._padded([prompts[int(row)] for row in full], context + _SPARE)
        cut = (longer[:, :context] != tokens[full]) | (longer[:, [context]] != pad)
        found = full[cut.any(axis=1)]
        if not len(found):
            return None
        prompt = prompts[int(found[0])]
        whole = self._padded([prompt], context + _BYTES * len(prompt.encode()))[0]
        return TooLong(
            len(found), int(found[0]), int(np.flatnonzero(whole != pad)[-1]) + 1, context
        )

    def _padded(self, prompts: Sequence[str], length: int) -> Int64[np.ndarray, "prompts length"]:
        found: np.ndarray = self._tokenize(list(prompts), context_length=length).numpy()
        return found.astype(np.int64)

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
        if self._end is None or self._end.tower is None:
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


def _end_token(model: Any) -> EndToken | None:  # noqa: ANN401
    """Return how a causal tower finds its end token; `None` for every other kind.

    A model that is not of open_clip says it itself, as `end_token`.
    """
    if hasattr(model, "end_token"):
        its: EndToken | None = model.end_token
        return its
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
    return EndToken(tower, eos if pooling == "eos" else None)


def _encoder(model: Any) -> nn.Module:  # noqa: ANN401
    """Make a module whose call is `encode_text`, as open_clip's."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.model.encode_text(tokens, normalize=False)
            return found

    return Encoder()
