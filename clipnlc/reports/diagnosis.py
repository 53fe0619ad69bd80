"""What `doctor` found, as values and as text for a terminal."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from clipnlc.wording import count

Severity = Literal["problem", "warning", "note", "fine"]

SHOWN = 3
"""Places that a finding names before it counts the rest."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        check: what was looked at: `class names`, `duplicates`, ...
        severity: `problem` makes numbers wrong; `warning` may; `note` is worth knowing; `fine`
            says that nothing was found.
        found: what was found, and how often.
        where: the first few places (sample ids, classes, backbones).
        cause: what is likely behind it; empty where nothing is wrong.
        cure: what to do; empty if nothing.
    """

    check: str
    severity: Severity
    found: str
    where: tuple[str, ...] = ()
    cause: str = ""
    cure: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` looked at and found.

    Attributes:
        dataset: its name in the store.
        rows: images by split.
        looked_at: of those, how many were decoded, by split.
        backbones: whose zero-shot logits were looked at.
        findings: the gravest first.
    """

    dataset: str
    rows: Mapping[str, int]
    looked_at: Mapping[str, int]
    backbones: tuple[str, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Return the number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)


def first_few(places: Iterable[str], total: int | None = None) -> tuple[str, ...]:
    """Keep the first few places, and count the rest; `total`, where not all are given.

    >>> first_few("abcde"), first_few("abc", 3)
    (('a', 'b', 'c', 'and 2 more'), ('a', 'b', 'c'))
    """
    listed = list(places)
    rest = (len(listed) if total is None else total) - SHOWN
    return (*listed[:SHOWN], f"and {rest} more") if rest > 0 else tuple(listed)


def gravest_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort findings by severity, keeping the order of equals."""
    return tuple(sorted(findings, key=lambda f: get_args(Severity).index(f.severity)))


def diagnosis_text(diagnosis: Diagnosis, *, width: int) -> str:
    """Write what was looked at and each finding with what to do, in lines of at most `width`."""
    images = ", ".join(
        f"{diagnosis.looked_at[split]} of {count(rows, f'{split} image')}"
        for split, rows in diagnosis.rows.items()
    )
    logits = f"; zero-shot logits of {', '.join(diagnosis.backbones)}"
    problems, warnings = diagnosis.count("problem"), diagnosis.count("warning")
    heading = (
        f"{diagnosis.dataset}: {count(problems, 'problem')}, {count(warnings, 'warning')} "
        f"({images}{logits if diagnosis.backbones else ''})"
    )
    lines = _wrapped(heading, width, "", "  ")
    for finding in diagnosis.findings:
        margin, rest = f" {finding.severity:<8}", " " * 9
        places = f": {', '.join(finding.where)}" if finding.where else ""
        advice = "; ".join(part for part in (finding.cause, finding.cure) if part)
        lines += _wrapped(f"{finding.check}: {finding.found}{places}", width, margin, rest)
        lines += _wrapped(advice, width, rest, rest)
    return "\n".join(lines)


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,  # a path that is cut cannot be pasted
    )
