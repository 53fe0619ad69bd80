"""`evaluate` and `diversity`: the stages that measure."""

from pathlib import Path
from typing import Annotated

import typer

from clipnlc.cli.options import (
    AsJson,
    BackbonesInStore,
    DatasetsInStore,
    Quiet,
    Store,
    backbones_of,
    head_of,
    key_of,
    keys_of,
)
from clipnlc.cli.output import (
    Sayer,
    head_option,
    progress,
    say_next,
    show_report,
    write,
    writing,
)
from clipnlc.commands import DEFAULT_STORE
from clipnlc.wording import count


def evaluate(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="Whose logits the fits are of: zero-shot or linear.")
    ] = "zero-shot",
    fitted_on: Annotated[
        str,
        typer.Option(help="Apply the fits of this data set to the others; classes match by name."),
    ] = "",
    keep_scores: Annotated[
        bool,
        typer.Option(
            "--keep-scores", help="Keep the scores of votes and others that do not weigh."
        ),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write every row as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables as Markdown.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the tables of accuracy and calibration.

    One table per data set and a summary, and a JSON record in the store. Applies the fits of
    train-nlc, each data set's own or those of another one; nothing is fitted.

    Example: clipnlc evaluate --dataset digits --markdown table.md
    """
    from clipnlc.reports.tables import evaluation_report
    from clipnlc.runs.members import members_name
    from clipnlc.runs.records import evaluation_path
    from clipnlc.stages.evaluate import evaluate as stage
    from clipnlc.stores.layout import Layout

    say = Sayer(quiet=quiet or as_json)
    measured = False
    with progress(say, "evaluate") as advance:

        def on_progress(name: str, done: int, total: int) -> None:
            nonlocal measured
            measured = True
            advance(name, done, total, "")

        evaluation = stage(
            store=store,
            datasets=keys_of(dataset) or None,
            backbones=backbones_of(backbones) or None,
            head=head_of(head),
            fitted_on=key_of(fitted_on) if fitted_on.strip() else None,
            keep_scores=keep_scores,
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
    record = evaluation_path(
        Layout(store),
        head,
        members_name(evaluation.backbones),
        dataset=keys[0] if len(keys) == 1 else None,
        fitted_on=evaluation.fitted_on or None,
    )
    say(f"record: {record} ({'written' if measured else 'cached'})")
    command = f"diversity{head_option(head)}"
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
    from clipnlc.reports.diversity_tables import diversity_report
    from clipnlc.runs.members import members_name
    from clipnlc.runs.records import diversity_path
    from clipnlc.stages.diversity import diversity as stage
    from clipnlc.stores.layout import Layout

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
    record = diversity_path(Layout(store), head, members_name(measured.backbones), dataset=one)
    say(f"record: {record} ({'written' if fresh else 'cached'})")
    say(f"{count(len(drawn), 'page')} of heat maps in {drawn[0].parent}")
