"""`train-heads` and `train-nlc`: the stages that learn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from clipnlc.cli.options import (
    LARGEST,
    LARGEST_SEED,
    MOST_EPOCHS,
    MOST_SEEDS,
    MOST_WORKERS,
    AsJson,
    BackbonesInStore,
    DatasetsInStore,
    Quiet,
    Store,
    backbones_of,
    head_of,
    keys_of,
    labels_of,
    listed,
    refuse_several_amounts,
    was_given,
)
from clipnlc.cli.output import (
    Sayer,
    grouped,
    head_option,
    print_json,
    progress,
    say_next,
    say_replaced,
    show_explained,
    work_done,
)
from clipnlc.cli.protocols import ProtocolName, protocol_of
from clipnlc.commands import DEFAULT_STORE
from clipnlc.machine import cores
from clipnlc.wording import count as count_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clipnlc.reports.explained import Explained
    from clipnlc.stages.train_heads import TrainedHead
    from clipnlc.stages.train_nlc import FittedRun


def train_heads(
    context: typer.Context,
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[str, typer.Option(help="{trained_heads}.")] = "linear",
    teacher: Annotated[
        str,
        typer.Option(
            help="Of distilled: a combiner that train-nlc has fitted on the same labels; balanced-gp, "
            "or balanced for 0 shots, if not given."
        ),
    ] = "",
    holdout: Annotated[
        float | None,
        typer.Option(
            help="Share of train kept for the combiners; 0.1 if not given. For heads of few labels: "
            "the share that they are fitted on."
        ),
    ] = None,
    shots: Annotated[
        str,
        typer.Option(
            help="Instead of a hold-out: labels per class, one head each, comma-separated; "
            "1,2,4,8,16,32 for heads of few labels, 0 for distilled."
        ),
    ] = "",
    count: Annotated[
        str,
        typer.Option(
            help="Instead of shots: so many labels in all, at random; numbers, comma-separated."
        ),
    ] = "",
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_SEEDS, help="With --shots or --count: how many draws, each with a seed."
        ),
    ] = 3,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_EPOCHS, help="Passes over the rows; 300 if not given."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Of the steps; 2e-05 if not given, for linear."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=LARGEST, help="Rows of one step; 256 if not given.")
    ] = None,
    early_stopping: Annotated[
        float | None,
        typer.Option(
            help="Share of the head's own rows that decides when to stop; 0.0 if not given: never."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="Of linear heads: cpu or cuda train in torch; numpy if not given."),
    ] = "",
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Of the hold-out and the order of the rows."),
    ] = 0,
    protocol: ProtocolName = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make logits of a trained head per backbone.

    Needs features of train and test. A linear head starts from the class texts. A tenth of train is
    kept for the combiners. With --shots or --count, heads are fitted on a few labels: those that
    train-nlc draws. Combiners see logits of those labels by heads that were fitted without them.
    distilled learns the answers of a fit of all backbones, so that one backbone predicts alone. auto
    takes backbones without texts, too: each is answered by what it has.

    Example: clipnlc train-heads --dataset digits
    """
    from clipnlc.heads import HEADS
    from clipnlc.labels import Labels
    from clipnlc.runs.finding import DEFAULT_HOLDOUT, may_be_unlabelled
    from clipnlc.stages.train_heads import train_heads as stage

    say = Sayer(quiet=quiet or as_json)
    if protocol:
        head, _ = protocol_of(protocol, context, kept=DEFAULT_HOLDOUT)
        if not HEADS.get(head).needs_labels:
            say(f"no head is trained with --protocol {protocol}: extract has made {head} heads")
            asked = {"shots": shots, "seeds": f"{seeds}"}
            asked = {option: value for option, value in asked.items() if was_given(option, context)}
            command = " ".join([f"train-nlc --protocol {protocol}", *_spelled(asked)])
            say_next(
                say,
                command,
                dataset=dataset,
                keys=keys_of(dataset),
                backbones=backbones,
                store=store,
            )
            return
    refuse_several_amounts(context)
    per_draw = HEADS.get(head).per_draw
    share = holdout if per_draw else None
    drawing = bool(shots or count or share is not None)
    zero = may_be_unlabelled(head)
    labels = labels_of(shots=shots, count=count, holdout=share, zero=zero) if drawing else ()
    given = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "stopping_share": early_stopping,
        "device": device or None,
    }
    with progress(say, "train-heads") as advance:

        def on_progress(trained: "TrainedHead", done: int, total: int) -> None:
            advance("heads", done, total, f"{trained.dataset} {trained.backbone}")

        heads = stage(
            store=store,
            dataset=keys_of(dataset),
            backbones=backbones_of(backbones, store),
            head=head,
            settings={name: value for name, value in given.items() if value is not None},
            holdout=DEFAULT_HOLDOUT if holdout is None else holdout,
            seed=seed,
            labels=labels,
            seeds=range(seeds),
            teacher=teacher.strip() or None,
            on_progress=on_progress,
        )
    if as_json:
        print_json(heads)
        return
    for place, group in grouped(heads, lambda h: h.dataset):
        _say_trained(say, place, group)
    keys = dict.fromkeys(h.dataset for h in heads)
    next_command = f"train-nlc --head {head} --holdout 1"
    drawn = [h.run for h in heads if h.run]
    if drawn and not per_draw:
        if (few := f"{head}-few") in HEADS:
            say(f"combiners read no {head} heads of few labels; for them: train-heads --head {few}")
        return
    if drawn:
        options = Labels.options(drawn, zero=zero)
        options |= {"combiners": "parameter-free"} if HEADS.get(head).needs_teacher else {}
        next_command = " ".join([f"train-nlc --head {head}", *_spelled(options)])
    say_next(say, next_command, dataset=dataset, keys=keys, backbones=backbones, store=store)


def _spelled(options: "dict[str, str]") -> "list[str]":
    return [f"--{name} {value}" for name, value in options.items()]


def _say_trained(say: Sayer, place: str, group: "list[TrainedHead]") -> None:
    from clipnlc.heads import HEADS

    for where, heads in grouped(group, lambda h: f" {h.run.phrase}" if h.run else ""):
        cached = sum(h.cached for h in heads)
        work = work_done(len(heads) - cached, "trained", cached, "head")
        line = f"{place}: {work}{where}"
        if heads[0].rows:
            line += f", on {count_of(heads[0].rows, 'image')} each"
        if heads[0].accuracy is not None:
            mean = "on average " * (len(heads) > 1)
            ours = _mean(h.accuracy for h in heads)
            images = count_of(heads[0].held_out, "held-out image")
            if HEADS.get(heads[0].head).needs_teacher:  # it has learnt from all of train
                images = f"{count_of(heads[0].held_out, 'image')} whose labels were not read"
            line += f"; of {images} {mean}{ours:.1f} % right"
            if all(h.zero_shot is not None for h in heads):
                line += f" (zero-shot {_mean(h.zero_shot for h in heads):.1f} %)"
        say(line)
        _say_parts(say, heads)
        for head in heads:
            _say_head(say, head)


def _say_parts(say: Sayer, heads: "list[TrainedHead]") -> None:
    """Say what answers for each backbone under the head `auto`."""
    backbones: dict[str, dict[str, None]] = {}
    for head in heads:
        if "part" in head.facts:
            backbones.setdefault(str(head.facts["part"]), {})[head.backbone] = None
    if backbones:
        say("  " + "; ".join(f"{part}: {', '.join(names)}" for part, names in backbones.items()))


def _mean(shares: "Iterable[float | None]") -> float:
    known = [100 * share for share in shares if share is not None]
    return sum(known) / len(known)


def _say_head(say: Sayer, head: "TrainedHead") -> None:
    name = f"{head.backbone}, {head.run.name}," if head.run else head.backbone
    say_replaced(say, name, head.changed)
    if head.accuracy is None or head.zero_shot is None:
        return
    if head.accuracy < head.zero_shot:
        say(
            f"  {name} lost to its zero-shot head: "
            f"{100 * head.accuracy:.1f} % against {100 * head.zero_shot:.1f} %"
        )


def train_nlc(
    context: typer.Context,
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[str, typer.Option(help="zero-shot, or one of train-heads.")] = "zero-shot",
    combiners: Annotated[
        str,
        typer.Option(
            help="Names or groups (recommended, paper, adaptive, parameter-free, baselines, rivals, "
            "controls, transductive, all), comma-separated."
        ),
    ] = "recommended,parameter-free",
    shots: Annotated[
        str, typer.Option(help="Labels per class, comma-separated; `all` is every label.")
    ] = "1,2,4,8,16,32",
    count: Annotated[
        str,
        typer.Option(
            help="Instead of shots: so many labels in all, at random; numbers, comma-separated."
        ),
    ] = "",
    holdout: Annotated[
        float | None, typer.Option(help="Instead of shots: this share of the labelled split.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_SEEDS, help="How many runs, each with other labels and another seed."
        ),
    ] = 3,
    class_proportions: Annotated[
        str,
        typer.Option(
            help="How common the classes are where you predict, for balanced and balanced-gp: "
            "uniform, labels (with --count), or a file of class,proportion lines. Unless given, "
            "equal proportions are half trusted."
        ),
    ] = "",
    strict_shots: Annotated[
        bool, typer.Option("--strict-shots", help="Refuse a class with fewer images than shots.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say how each fit, new or cached, decides: backbones' shares, weights per class.",
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=MOST_WORKERS, help="Processes; 0 for one per core.")
    ] = 0,
    protocol: ProtocolName = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make fits of combiners.

    Fits combiners on the same few labels per class: unless --combiners says otherwise, those that we
    recommend (clipnlc combiners recommended) and the averages that need no labels. Needs logits: those of extract, or of
    train-heads. Test is never opened.

    Example: clipnlc train-nlc --shots 4 --combiners nlc,log-avg --explain
    """
    from clipnlc.combiners import USUAL
    from clipnlc.runs.finding import may_be_unlabelled
    from clipnlc.stages.train_nlc import train_nlc as stage
    from clipnlc.stores.layout import Layout, maker_of_test

    if protocol:
        head, holdout = protocol_of(protocol, context)
    refuse_several_amounts(context)
    say = Sayer(quiet=quiet or as_json)
    with progress(say, "train-nlc") as advance:

        def on_progress(fitted: "FittedRun", done: int, total: int) -> None:
            advance("runs", done, total, f"{fitted.dataset} {fitted.which.name}")

        runs = stage(
            store=store,
            dataset=keys_of(dataset),
            backbones=backbones_of(backbones, store),
            head=head,
            combiners=listed(combiners) or USUAL,
            labels=labels_of(
                shots=shots,
                count=count,
                holdout=holdout,
                zero=may_be_unlabelled(head_of(head, store)),
            ),
            seeds=range(seeds),
            proportions=_proportions(class_proportions),
            strict_shots=strict_shots,
            workers=workers or cores(),
            on_progress=on_progress,
            on_note=lambda line: say(f"note: {line}"),
        )
    explained = _explained(store, runs, backbones_of(backbones, store), head) if explain else []
    if as_json:
        print_json({"runs": runs, "explained": explained} if explain else runs)
        return
    for place, group in grouped(runs, lambda r: r.dataset):
        _say_fitted(say, place, group)
    for place, said in grouped(explained, lambda e: e.dataset):
        show_explained(place, said, say)
    keys = dict.fromkeys(r.dataset for r in runs)
    untested = [key for key in keys if "test" not in Layout(store).splits(key)]
    if untested:  # what follows measures on test
        say(f"next: {maker_of_test(store, ','.join(untested), backbones)}")
        return
    command = f"evaluate{head_option(head)}"
    say_next(say, command, dataset=dataset, keys=keys, backbones=backbones, store=store)


def _explained(
    store: Path, runs: "Sequence[FittedRun]", backbones: "Sequence[str]", head: str
) -> "list[Explained]":
    from clipnlc.stages.explain import explain

    fits = {
        place: {run.which: (*run.combiners, *run.cached) for run in group}
        for place, group in grouped(runs, lambda r: r.dataset)
    }
    return explain(store=store, fits=fits, backbones=backbones, head=head)


def _proportions(given: str) -> "Mapping[str, float] | Literal['uniform', 'labels'] | None":
    from clipnlc.datasets.proportions import read_proportions

    if given in ("uniform", "labels"):
        return cast("Literal['uniform', 'labels']", given)
    return read_proportions(Path(given)) if given else None


def _say_fitted(say: Sayer, place: str, group: "list[FittedRun]") -> None:
    fitted = sum(len(r.combiners) for r in group)
    cached = sum(len(r.cached) for r in group)
    drawn = [r for r in group if r.which.kind != "none"]
    labels = [r.labels for r in drawn]
    if not drawn:
        where = "without labels"
    else:
        sizes = dict.fromkeys(r.which.setting for r in drawn)
        if all(size.kind == "shots" for size in sizes):
            amounts = ", ".join(f"{size.amount:g}" for size in sizes)
            kind = f"{amounts} shot{'s' * (amounts != '1')}"
        else:
            kind = ", ".join(size.heading for size in sizes)
        seeds = count_of(len({r.which.seed for r in drawn}), "seed")
        spread = f"{min(labels)} to " * (min(labels) < max(labels))
        where = f"{kind} × {seeds} ({spread}{count_of(max(labels), 'label')})"
    say(f"{place}: {where}: {work_done(fitted, 'made', cached, 'fit')}")
    short = max((r.short for r in group), key=len)
    if short:
        fewest = min(short, key=lambda c: short[c])
        have = "class has" if len(short) == 1 else "classes have"
        most = max(r.which.amount for r in group)
        say(
            f"  {len(short)} {have} fewer than {most:g} labelled images "
            f"(fewest: {fewest}, {short[fewest]}); all there are were used"
        )
