"""What `clipnlc backbones` lists."""

from dataclasses import dataclass

from clipnlc.backbones import GROUPS, Backbone, resolve


@dataclass(frozen=True)
class Entry:
    """One backbone.

    Attributes:
        name: as given to `--backbones`.
        groups: groups it belongs to.
        dim: width of its embedding.
        input: side of its input, in pixels.
        parameters: of both towers.
        at_hand: its weights need no download.
    """

    name: str
    groups: tuple[str, ...]
    dim: int
    input: int
    parameters: int
    at_hand: bool


def catalogue(names: str) -> list[Entry]:
    """Describe backbones without loading weights.

    Raises:
        BackboneError: a weights file does not exist.
        UnknownNameError: a name or an architecture is not known.
    """
    from clipnlc.backbones.loaded import describe

    entries = []
    for backbone in resolve(names):
        groups = tuple(g for g, members in GROUPS.items() if backbone.name in members)
        entries.append(
            Entry(backbone.name, groups, **describe(backbone), at_hand=_at_hand(backbone))
        )
    return entries


def _at_hand(backbone: Backbone) -> bool:
    if backbone.file is not None:
        return backbone.file.is_file()
    from huggingface_hub import try_to_load_from_cache

    from clipnlc.backbones.loaded import pretrained_config

    # open_clip loads a tag from the hub's cache; the file names are its own, in its own order.
    repository = str(pretrained_config(backbone).get("hf_hub", "")).rstrip("/")
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, f), str) for f in files if repository)
