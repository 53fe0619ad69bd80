"""Byte-pair merges for open_clip's own tokenizer, learnt from a set of captions."""

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

# What open_clip's tokenizer adds to the merges: 256 bytes, each also as a word's end, and the
# start and end tokens.
RESERVED: Final = 512 + 2

_RARE: Final = 2  # a pair seen less often is not worth a token


def learn_merges(texts: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """Learn byte-pair merges, most frequent pair first; ties go to the alphabetically first pair.

    Words are split as `open_clip.SimpleTokenizer` splits them, so that training and use agree.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        for word in tokenizer.pat.findall(tokenizer.clean_fn(text)):
            counts["".join(tokenizer.byte_encoder[b] for b in word.encode())] += 1
    words = {w: ((*w[:-1], w[-1] + "</w>"), n) for w, n in sorted(counts.items())}
    learnt: list[tuple[str, str]] = []
    while len(learnt) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, n in words.values():
            for pair in pairwise(symbols):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], p), default=None)
        if best is None or pairs[best] < _RARE:
            break
        learnt.append(best)
        for word, (symbols, n) in words.items():
            if best[0] in symbols:
                words[word] = (_merged(symbols, best), n)
    return learnt


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return tuple(merged)


def write_merges(path: Path, merges: list[tuple[str, str]]) -> None:
    """Write the file that `open_clip.get_tokenizer(bpe_path=…)` reads.

    No newline at the end: open_clip would take it for one more token. No time in the header, so
    that the same merges give the same bytes.
    """
    lines = ["#version: clipnlc", *(f"{a} {b}" for a, b in merges)]
    with path.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as z:
        z.write("\n".join(lines).encode())


def merges_digest(path: Path) -> str:
    """Digest the merges in a file, whatever compressed it (blake2b, 32 hexadecimal digits)."""
    return hashlib.blake2b(gzip.decompress(path.read_bytes()), digest_size=16).hexdigest()
