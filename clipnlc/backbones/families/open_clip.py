"""open_clip: every architecture and tag that it knows, and weights files of its architectures."""

from typing import ClassVar

from clipnlc.backbones.families.base import Family


class OpenClip(Family):
    """CLIP models of open_clip."""

    name: ClassVar[str] = "open_clip"
