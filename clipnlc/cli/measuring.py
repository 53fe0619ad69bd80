"""`evaluate` and `diversity`: the stages that measure."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from clipnlc.cli.options import (
    MOST_WORKERS,
    AsJson,
    BackbonesInStore,
    DatasetsInStore,
    Quiet,
    Store,
    backbones_of,
    head_of,
    key_of,
    keys_of,
    listed,
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
from clipnlc.cli.protocols import PROTOCOLS, protocol_of
from clipnlc.commands import DEFAULT_STORE, command
from clipnlc.errors import ClipnlcError, DataError, MissingStageError
from clipnlc.machine import cores
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.reports.files import Record
    from clipnlc.reports.record import Comparison, Evaluation
    from clipnlc.reports.tables import Report


def evaluate(
    context: typer.Context,
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="Whose logits the fits are of: zero-shot, or one of train-heads.")
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
    against: Annotated[
        str, typer.Option(help="Compare the others with this method, image by image.")
    ] = "",
    baselines: Annotated[
        str,
        typer.Option(help="With --against: names or groups to compare, one family; all if empty."),
    ] = "",
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="With the rows of the controls.")
    ] = True,
    full: Annotated[
        bool, typer.Option("--full", help="Print every table, not the answer alone.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write every row as CSV.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write every table as Markdown.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Show one of the NLC paper's, its heads and its labels: zero-shot, linear, few-shot."
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(min=0, max=MOST_WORKERS, help="Processes; 0 for one per core.")
    ] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make the tables of accuracy and calibration.

    Prints the answer: a headline and a summary; --full prints every table. Leaves a JSON record in
    the store. Applies the fits of train-nlc, each data set's own or those of another one; nothing
    is fitted. With --against, the differences from one method with intervals and tests; they are
    then in CSV, Markdown and JSON, and in a record of their own.

    Example: clipnlc evaluate --dataset digits --markdown table.md
    """
    from clipnlc.heads import HEADS
    from clipnlc.runs.members import members_name
    from clipnlc.runs.records import comparison_path, evaluation_path
    from clipnlc.stages.evaluate import compare
    from clipnlc.stages.evaluate import evaluate as stage
    from clipnlc.stages.evaluate.finding import labelled_in_part
    from clipnlc.stores.layout import Layout

    if protocol:
        head, _ = protocol_of(protocol, context)
    if baselines.strip() and not against.strip():
        raise DataError("--baselines names what is compared; name with what in --against METHOD")
    say = Sayer(quiet=quiet or as_json)
    measured = False
    with progress(say, "evaluate") as advance:

        def on_progress(name: str, done: int, total: int) -> None:
            nonlocal measured
            measured = True
            advance(name, done, total, "")

        asked = _Asked(
            store=store,
            datasets=keys_of(dataset) or None,
            backbones=backbones_of(backbones, store) or None,
            head=head_of(head, store),
            fitted_on=key_of(fitted_on) if fitted_on.strip() else None,
            workers=workers or cores(),
        )
        evaluation = stage(**asked, keep_scores=keep_scores, on_progress=on_progress)
        comparison = (
            compare(**asked, against=against.strip(), baselines=listed(baselines))
            if against.strip()
            else None
        )
    options = {
        "dataset": dataset,
        "backbones": backbones,
        "protocol": protocol,
        "head": head * (head != (PROTOCOLS[protocol].head if protocol else "zero-shot")),
    }
    record: Record = comparison or evaluation
    if protocol:
        record = _of_protocol(comparison or evaluation, options, store)
    keys = [one.dataset for one in evaluation.datasets]
    place = {
        "dataset": keys[0] if len(keys) == 1 else None,
        "fitted_on": evaluation.fitted_on or None,
    }
    layout, members = Layout(store), members_name(evaluation.backbones)
    path = evaluation_path(layout, head, members, **place)
    if comparison is not None:
        path = comparison_path(layout, head, members, comparison.against, **place)
    _write_tables(record, csv, markdown, controls=controls)
    show_report(_report(record, full=full, controls=controls), record, say, as_json=as_json)
    if not full:
        options |= {"fitted_on": fitted_on.strip(), "against": against.strip()}
        say(f"everything: {command('evaluate --full', store=store, **options)}")
    say(f"record: {path} ({'written' if measured or comparison else 'cached'})")
    everything = layout.datasets() if not dataset.strip() and not fitted_on.strip() else ()
    if partly := [name for name in everything if labelled_in_part(layout, name, evaluation.split)]:
        say(f"left out, for they have no {evaluation.split} split: {', '.join(partly)}")
    if not HEADS.get(head).per_draw:  # diversity compares heads that are fitted once
        _offer_diversity(say, evaluation, store, dataset=dataset, backbones=backbones)


def _offer_diversity(
    say: Sayer, evaluation: "Evaluation", store: Path, *, dataset: str, backbones: str
) -> None:
    """Say how to measure diversity: by the words of this command, else of what was evaluated alone.

    All of the store may hold a backbone without texts, or a data set without a test split. Where
    nothing can be measured, as where features are gone, nothing is said.
    """
    from clipnlc.stages.diversity import is_measurable

    if say.quiet:
        return
    head, keys = evaluation.head, [one.dataset for one in evaluation.datasets]
    for names, words in itertools.product(
        dict.fromkeys((dataset, ",".join(keys))),
        dict.fromkeys((backbones, ",".join(evaluation.backbones))),
    ):
        try:
            members = backbones_of(words, store) or None
        except ClipnlcError:
            continue  # of a weights file that has gone
        datasets = keys if names.strip() else None
        if is_measurable(store=store, datasets=datasets, head=head, backbones=members):
            after = f"diversity{head_option(head)}"
            say_next(say, after, dataset=names, keys=keys, backbones=words, store=store)
            return


class _Asked(TypedDict):
    """What is measured, as the stage takes it."""

    store: Path
    datasets: tuple[str, ...] | None
    backbones: tuple[str, ...] | None
    head: str
    fitted_on: str | None
    workers: int


def _of_protocol(
    record: "Evaluation | Comparison", options: Mapping[str, str], store: Path
) -> "Record":
    """Keep the rows of the protocol that was named.

    Raises:
        MissingStageError: all there is needs no labels, or has others.
    """
    from clipnlc.reports.narrowed import drawn_as
    from clipnlc.reports.record import Evaluation

    draws = PROTOCOLS[options["protocol"]].draws
    if isinstance(record, Evaluation):
        labels = [row.drawn for one in record.datasets for row in one.rows]
    else:
        labels = [row.column for one in record.datasets for row in one.rows]
    if not any(map(draws, labels)):
        cure = command("train-nlc", store=store, **options)
        raise MissingStageError(
            f"{store} holds no fits of --protocol {options['protocol']}; run `{cure}` first"
        )
    return drawn_as(record, draws)


def _report(record: "Record", *, full: bool, controls: bool) -> "Report":
    """Lay out an evaluation or a comparison: every table, or the answer alone."""
    from clipnlc.reports.answer import answer
    from clipnlc.reports.comparison_tables import comparison_report
    from clipnlc.reports.record import Comparison, Evaluation
    from clipnlc.reports.tables import evaluation_report

    if isinstance(record, Comparison):
        return comparison_report(record, each=full, controls=controls)
    assert isinstance(record, Evaluation)
    return (evaluation_report if full else answer)(record, controls=controls)


def _write_tables(
    record: "Record", csv: Path | None, markdown: Path | None, *, controls: bool
) -> None:
    """Write the files that options asked for: always everything."""
    from clipnlc.reports.markdown import markdown as rendered
    from clipnlc.reports.record import Comparison, Evaluation
    from clipnlc.reports.spreadsheet import comparison_csv, evaluation_csv

    if csv is not None and isinstance(record, Comparison):
        write("--csv", csv, comparison_csv(record))
    elif csv is not None and isinstance(record, Evaluation):
        write("--csv", csv, evaluation_csv(record))
    if markdown is not None:
        write("--markdown", markdown, rendered(_report(record, full=True, controls=controls)))


def diversity(
    dataset: DatasetsInStore = "",
    backbones: BackbonesInStore = "",
    store: Store = DEFAULT_STORE,
    head: Annotated[
        str, typer.Option(help="Whose logits: zero-shot, linear, or auto for imported ones too.")
    ] = "zero-shot",
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
            backbones=backbones_of(backbones, store) or None,
            head=head_of(head, store),
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
