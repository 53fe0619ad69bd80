"""Whether what a file was made from is still what it was.

A key's `inputs` name files below the store, and parts of files as `path#part`: a split of a logit
file, or the fit of one combiner. So a fit does not depend on the test split of the file that it
learnt from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clipnlc.commands import command
from clipnlc.errors import StoreError
from clipnlc.labels import Labels
from clipnlc.runs.finding import Runs
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, locate
from clipnlc.stores.logits import read_logit_header

PART = "#"


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
        """Return the key of a feature or logit file; None where there is none."""
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
        StoreError: names the file, what has changed, and the command that makes it again.
    """
    for name in names:
        key = present.key(name)
        since = present.changed(key.inputs) if key is not None else set()
        place = locate(present.layout.root / name)
        if since and place is not None:
            raise StoreError(
                f"{name} is stale: {min(since)} has changed since; run `{place.command}`"
            )


def refuse_stale_runs(
    present: Present, runs: Runs, combiners: Mapping[str, Iterable[str]] | None = None
) -> None:
    """Check that logits are current, and no input of any run, or of its inputs, has changed since.

    Args:
        present: the store as it is.
        runs: what is checked.
        combiners: only these runs, and of each only these combiners; all by default.

    Raises:
        StoreError: says what is stale since what has changed, and the command that makes it again.
    """
    layout = present.layout
    wanted = combiners or {run: header.keys for run, header in runs.headers.items()}
    inputs = {
        run: [runs.headers[run].keys[name].inputs for name in names]
        for run, names in wanted.items()
    }
    logits = {layout.relative(layout.logits(runs.dataset, runs.head, b)) for b in runs.backbones}
    files = {n.partition(PART)[0] for each in inputs.values() for one in each for n in one}
    refuse_stale_logits(present, sorted(files | logits))
    causes = {run: set().union(*map(present.changed, each)) for run, each in inputs.items()}
    stale = [run for run, since in causes.items() if since]
    if not stale:
        return
    names = sorted(set().union(*(causes[run] for run in stale)))
    first, others = layout.relative(runs.paths[stale[0]]), len(stale) - 1
    which = f"{first} and {others} more runs are" if others else f"{first} is"
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    cure = command(
        "train-nlc",
        dataset=runs.dataset,
        head=runs.head,
        backbones=runs.backbones,
        store=layout.root,
        **Labels.options([Labels.parse(run) for run in stale]),
    )
    raise StoreError(f"{which} stale: {names[0]}{more} has changed since; run `{cure}`")
