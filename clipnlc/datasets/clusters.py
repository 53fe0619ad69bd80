"""Which data sets share images, so that what is measured on them is no independent evidence.

A nano set says it in its `dataset.json`. A data set that says nothing is a cluster of its own.
"""

import json

from clipnlc.datasets import nano


def cluster_of(key: str) -> str:
    """Return the cluster of a data set in a store, by its key; its own name where it is alone.

    >>> cluster_of("emoji_group") == cluster_of("emoji_kind"), cluster_of("my-photos")
    (True, 'my-photos')
    """
    if key not in nano.KEYS:
        return key
    card = json.loads((nano.dataset_root(key) / "dataset.json").read_text("utf-8"))
    return str(card.get("cluster", key))
