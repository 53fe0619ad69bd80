"""`evaluate` and `diversity`: the stages that measure."""

from pathlib import Path
from typing import Annotated

import typer

from clipnlc.cli.options import (
    DEFAULT_STORE,
    AsJson,
    BackbonesInStore,
    DatasetsInStore,
    Quiet,
    Store,
    backbones_of,
    head_of,
    keys_of,
)
from clipnlc.cli.output import (
    Sayer,
    count,
    progress,
    say_next,
    show_report,
    write,
    writing,
)


def evaluate(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="Whose combined runs: zero-shot or linear.")
    ] = "zero-shot",
    csv: Annotated[Path | None, typer.Option(help="Also write every row as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the tables of accuracy and calibration.

    One table per data set and a summary, and a JSON record in the store. Needs the combined runs of
    train-nlc; nothing is fitted.

    Example: clipnlc evaluate --dataset digits --markdown table.md
    """
    from clipnlc.reports.tables import evaluation_report
    from clipnlc.stages.evaluate import evaluate as stage
    from clipnlc.stages.evaluate import record_path

    say = Sayer(quiet=quiet or as_json)
    measured = 0
    with progress(say, "evaluate") as advance:

        def on_progress(done: int, total: int) -> None:
            nonlocal measured
            measured = done
            advance("data sets", done, total, "")

        evaluation = stage(
            store=store,
            datasets=keys_of(dataset) or None,
            backbones=backbones_of(backbones) or None,
            head=head_of(head),
            on_progress=on_progress,
        )
    report = evaluation_report(evaluation)
    if csv is not None:
        from clipnlc.reports.spreadsheet import evaluation_csv

        write("--csv", csv, evaluation_csv(evaluation))
    if markdown is not None:
        from clipnlc.reports.markdown import markdown as rendered

        write("--markdown", markdown, rendered(report))
    show_report(report, evaluation, say, as_json=as_json)
    keys = [one.dataset for one in evaluation.datasets]
    record = record_path(store, head, dataset=keys[0] if len(keys) == 1 else None)
    say(f"record: {record} ({'written' if measured else 'cached'})")
    command = f"diversity{' --head linear' * (head == 'linear')}"
    say_next(say, command, dataset=dataset, keys=keys, backbones=backbones, store=store)


def diversity(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[str, typer.Option(help="Whose logits: zero-shot or linear.")] = "zero-shot",
    csv: Annotated[Path | None, typer.Option(help="Also write every entry as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for the heat maps; <store>/plots if not given.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make tables and heat maps of diversity.

    How differently the backbones err, pair by pair and together; also a JSON record in the store.
    Needs logits and features.

    Example: clipnlc diversity --dataset digits --plots plots
    """
    from clipnlc.reports.tables import diversity_report
    from clipnlc.stages.diversity import diversity as stage
    from clipnlc.stages.diversity import record_path

    say = Sayer(quiet=quiet or as_json)
    fresh = 0
    with progress(say, "diversity") as advance:

        def on_progress(done: int, total: int) -> None:
            nonlocal fresh
            fresh += 1
            advance("data sets", done, total, "")

        measured = stage(
            store=store,
            datasets=keys_of(dataset) or None,
            backbones=backbones_of(backbones) or None,
            head=head_of(head),
            on_progress=on_progress,
        )
    report = diversity_report(measured)
    if csv is not None:
        from clipnlc.reports.spreadsheet import diversity_csv

        write("--csv", csv, diversity_csv(measured))
    if markdown is not None:
        from clipnlc.reports.markdown import markdown as rendered

        write("--markdown", markdown, rendered(report))
    show_report(report, measured, say, as_json=as_json)
    from clipnlc.reports.heatmaps import draw_heatmaps

    folder = plots or store / "plots"
    with writing("--plots", folder):
        drawn = draw_heatmaps(measured, folder)
    one = measured.datasets[0].dataset if len(measured.datasets) == 1 else None
    say(f"record: {record_path(store, head, dataset=one)} ({'written' if fresh else 'cached'})")
    say(f"{count(len(drawn), 'page')} of heat maps in {drawn[0].parent}")
