"""The model card of an exported ensemble, in the form of the Hugging Face hub.

Everything in it follows from the export, so it claims no more than was measured.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from clipnlc.commands import command
from clipnlc.export import Export, Measurement
from clipnlc.reports.markdown import escaped
from clipnlc.wording import count

TASK: Final = "image-classification"
TAGS: Final = ("clip", "open_clip", "ensemble", "clipnlc")
LISTED_CLASSES: Final = 50
LISTED_PROMPTS: Final = 5


def model_card(export: Export, *, folder: str, base_models: Mapping[str, str]) -> str:
    """Write the card as Markdown with a YAML header.

    Args:
        export: what is described.
        folder: its name, for the lines that show how to use it.
        base_models: names on the hub, by backbone, where they are known.
    """
    header = ["---", *_header(export, base_models), "---"]
    blocks = [
        "\n".join(header),
        *_introduction(export),
        "## Models",
        _models(export),
        "## Classes",
        _classes(export),
        "## How it was fitted",
        _listed(_fitting(export)),
        "## Accuracy",
        *_accuracy(export),
        "## Limits",
        _listed(_limits(export)),
        "## Use",
        *_use(folder),
    ]
    return "\n\n".join(blocks) + "\n"


# The YAML header -------------------------------------------------------------------------------


def _header(export: Export, base_models: Mapping[str, str]) -> Iterator[str]:
    yield "license: unknown"
    yield "library_name: clipnlc"
    yield f"pipeline_tag: {TASK}"
    yield "tags:"
    yield from (f"- {tag}" for tag in TAGS)
    if base_models:
        yield "base_model:"
        yield from (f"- {_yaml(name)}" for name in dict.fromkeys(base_models.values()))
    yield "metrics:"
    yield "- accuracy"
    held_out = [one for one in export.measured if one.estimate == "held-out"]
    if held_out:
        yield "model-index:"
        yield f"- name: {_yaml(_title(export))}"
        yield "  results:"
        for one in held_out:
            yield "  - task:"
            yield f"      type: {TASK}"
            yield "    dataset:"
            yield f"      name: {_yaml(one.dataset)}"
            yield f"      type: {_yaml(one.dataset)}"
            yield f"      split: {_yaml(one.split)}"
            yield "    metrics:"
            yield "    - type: accuracy"
            yield f"      value: {_yaml_number(one.accuracy)}"


def _yaml(text: str) -> str:
    """Write any text as a double-quoted YAML scalar of printable characters."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted) + '"'


def _yaml_number(value: float) -> str:
    """Write a float; YAML 1.1 takes one without a point for a text."""
    text = repr(float(value))
    return text if "." in text else text.replace("e", ".0e")


# The text --------------------------------------------------------------------------------------


def _title(export: Export) -> str:
    return f"{export.dataset}, {export.fit.combiner} of {count(len(export.heads), 'CLIP model')}"


def _introduction(export: Export) -> Iterator[str]:
    yield f"# {_plain(_title(export))}"
    yield (
        f"An ensemble of {count(len(export.heads), 'CLIP model')} that sorts images into "
        f"{count(len(export.class_names), 'class')}. The folder holds what was learnt; "
        "the weights of the models themselves are not in it. Made with clipnlc "
        f"{_plain(export.clipnlc)}."
    )
    if export.requires:
        yield f"It needs packages besides clipnlc:\n\n```\n{_install(export)}\n```"


def _install(export: Export) -> str:
    return shlex.join(["pip", "install", "clipnlc", *export.requires])


def _models(export: Export) -> str:
    rows = [
        ("backbone", "architecture", "input", "precision", "open_clip", "SHA-256 of the weights"),
        ("---",) * 6,
    ]
    for head in export.heads:
        its = head.identity
        size = its["preprocessing"].get("size", "")
        rows.append(
            (
                _plain(head.backbone),
                _plain(its["architecture"]),
                _plain(" x ".join(map(str, size)) if isinstance(size, list | tuple) else str(size)),
                _plain(its["precision"]),
                _plain(str(its.get("open_clip") or its.get("timm", ""))),
                _plain(its["weights"]),
            )
        )
    return _table(rows)


def _classes(export: Export) -> str:
    names = export.class_names
    listed = ", ".join(_plain(name) for name in names[:LISTED_CLASSES])
    more = len(names) - LISTED_CLASSES
    rest = f", and {more} more, which `ensemble.json` lists" if more > 0 else ""
    return f"{len(names)}: {listed}{rest}."


def _fitting(export: Export) -> Iterator[str]:
    fit = export.fit
    used = fit.facts.get("labels", 0)
    labels = (
        "none: nothing was learnt from labelled images"
        if fit.labels.kind == "none"
        else f"{count(int(used), 'image')} ({fit.labels.phrase}), drawn with seed {fit.labels.seed}"
    )
    taught = [head.teacher for head in export.heads if head.teacher is not None]
    yield f"data set: {_plain(export.dataset)}"
    yield f"labels of the {'teacher' if taught else 'combiner'}: {labels}"
    yield f"combiner: {_plain(fit.combiner)} ({_settings(fit.settings, [fit.learnt])})"
    learnt = [head.learnt for head in export.heads]
    yield f"heads: {_plain(export.head)} ({_settings(export.heads[0].settings, learnt)})"
    for teacher in dict.fromkeys(taught):
        yield (
            "teacher, whose answers on images without labels the heads learnt: "
            f"{_plain(teacher.combiner)} of {_plain(', '.join(teacher.backbones))}"
        )
    prompts = ", ".join(f'"{_plain(one)}"' for one in export.templates[:LISTED_PROMPTS])
    more = len(export.templates) - LISTED_PROMPTS
    prompts = prompts or "none: no backbone embeds texts"
    yield f"prompts of the class texts: {prompts}{f', and {more} more' if more > 0 else ''}"


def _accuracy(export: Export) -> Iterator[str]:
    if not export.measured:
        yield (
            f"Not measured. `{command('evaluate')}` measures it in the store that this was exported from; "
            "export it again after that."
        )
        return
    held_out = [one for one in export.measured if one.estimate == "held-out"]
    if held_out:
        yield f"As `{command('evaluate')}` measured it, of this very fit:"
        yield _table(
            [
                ("data set", "split", "images", "accuracy in %", "95 % interval over the images"),
                ("---", "---", "---:", "---:", "---:"),
                *(_measured(one) for one in held_out),
            ]
        )
    yield from (_cross_fitted(one) for one in export.measured if one not in held_out)


def _cross_fitted(one: Measurement) -> str:
    """Say what was estimated on the labels that the fit was made on, and of what images it holds."""
    chosen = one.estimate == "cross-fitted-chosen"
    of = (
        "These images were chosen and not drawn at random, so this holds of images like them, and of "
        "no others."
        if chosen
        else "These images are a random draw, so the interval is for all other images of the same "
        "source."
    )
    return (
        f"{100 * one.accuracy:.1f} % right of {count(one.images, 'labelled image')} of "
        f"{_plain(one.dataset)} (95 % interval {100 * one.low:.1f} to {100 * one.high:.1f}), "
        "cross-fitted: no image was held out; each was answered for by a fit on the labels of the "
        f"others, and this fit is on all of them. {of}"
    )


def _measured(one: Measurement) -> tuple[str, ...]:
    return (
        _plain(one.dataset),
        _plain(one.split),
        str(one.images),
        f"{100 * one.accuracy:.1f}",
        f"{100 * one.low:.1f} to {100 * one.high:.1f}",
    )


def _limits(export: Export) -> Iterator[str]:
    yield (
        "The classes are fixed: every image gets one of them, also an image that shows none of them."
    )
    yield (
        "The accuracy holds for images like those it was measured on. On photos of another kind "
        "(other cameras, places, drawings) it is unknown, and usually lower."
    )
    if export.probabilistic:
        yield (
            "The probabilities are those of the combiner; how well they are calibrated on other "
            "images is unknown."
        )
    else:
        yield "This combiner gives scores and no probabilities."
    if export.keeps_features:
        yield (
            "The learnt arrays contain features of images that it was fitted on. Whoever has the "
            "folder may learn from them what those images show."
        )
    else:
        yield "The learnt arrays contain no features of images that it was fitted on."
    yield (
        "No licence was chosen. Those of the models' weights and of the images it was fitted on "
        "apply; put yours into the header before you publish the folder."
    )


def _use(folder: str) -> Iterator[str]:
    name = folder if folder.isprintable() and "`" not in folder else "FOLDER"
    yield f"```console\n$ {command('predict photos', from_=name)}\n```"
    yield (
        f"```python\nimport clipnlc\n\nclipnlc.load({json.dumps(name, ensure_ascii=False)})"
        '.predict(["photo.jpg"])\n```'
    )


def _settings(settings: Mapping[str, Any], learnt: Sequence[Mapping[str, np.ndarray]]) -> str:
    return _plain(
        ", ".join(f"{name} {_value(name, value, learnt)}" for name, value in settings.items())
    )


def _value(name: str, value: object, learnt: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Spell a setting; of one that was left to the fit (0), what it chose."""
    chosen = [one[f"{name}_"] for one in learnt if f"{name}_" in one]
    if not value and chosen and all(array.ndim == 0 for array in chosen):
        spelled = sorted({float(array) for array in chosen})
        return f"{' or '.join(f'{number:g}' for number in spelled)} (chosen)"
    return value if isinstance(value, str) else json.dumps(value)


def _listed(items: Iterator[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _plain(text: str) -> str:
    """Keep a name on one line, printable, and from being read as markup."""
    line = " ".join(text.split())
    return escaped("".join(c for c in line if c.isprintable()))
