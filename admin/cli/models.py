"""The commands about models: which are installed here, and what each process imports of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from admin.cli.actions import (
    DATABASE_SILENT,
    LISTING,
    FolderOption,
    JsonOption,
    ListingGroup,
    OptionalModel,
    folder_or_default,
    reading,
    run,
)
from admin.cli.rendering import console, errors, print_json, print_rows
from backends.database.repositories.models import ModelRepository
from modelkit.definition import PARTS_OF_PROCESS, ModelDefinition, ModelPackageError
from modelkit.inspection import InspectionError, ProcessImports, imports_of
from modelkit.registry import GROUP, discover
from schemas.errors import SettingsError
from schemas.vocabulary import ModelType

COLUMNS = ("model_type", "title", "distribution", "contract_version", "counts", "threshold", "registered", "metric")
NOT_KNOWN = "not known"
NOT_HERE = "not installed here"
ProcessOption = Annotated[
    list[str] | None,
    typer.Option(
        "--process", help=f"Only what this process would import: {', '.join(PARTS_OF_PROCESS)}. Repeat for more."
    ),
]

app = typer.Typer(
    name="models",
    cls=ListingGroup,
    help="Models: which are installed here, and whether their packages are sound. Alone, it lists them.",
)


@app.command(LISTING)
def list_models(model: OptionalModel = None, folder: FolderOption = None, *, as_json: JsonOption = False) -> None:
    """List the models that are installed here: where they come from, what counts, and by what they are judged.

    The threshold is the one that the package ships; `thresholds` shows the one that holds. A model that this installation's
    database knows and no package here brings is listed too.
    """
    registered = run(_registered(folder_or_default(folder)))
    rows = [_row(definition, registered) for definition in discover().definitions.values()]
    rows += [_absent(model_type) for model_type in sorted((registered or set()) - set(discover().definitions))]
    rows = [row for row in rows if model is None or row["model_type"] == model]
    for problem in discover().problems:
        errors.print(f"[yellow]left out[/]: {escape(problem)}", soft_wrap=True)
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "registered": NOT_KNOWN if row["registered"] is None else row["registered"]} for row in rows]
    empty = f"No model is installed: install a package with an entry point in the group {GROUP}."
    print_rows([{**row, "metric": _in_words(row["metric"])} for row in shown], COLUMNS, title="Models", empty=empty)


@app.command()
def check(process: ProcessOption = None, *, as_json: JsonOption = False) -> None:
    """Load what each process would import of the installed models, each in an interpreter of its own. Exit status 1 if something is wrong.

    It names packages that are left out, parts that cannot be loaded or are not what the contract asks for, and heavy libraries
    in a process that does not install them. In an image with the extra of one process, name that process.
    """
    wanted = _known_processes(process or list(PARTS_OF_PROCESS))
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(_looked_at, wanted))
    imports = [each for each in found if isinstance(each, ProcessImports)]
    problems = [*discover().problems]
    problems += [sentence for each in found for sentence in ([each] if isinstance(each, str) else each.problems)]
    if as_json:
        print_json({"sound": not problems, "problems": problems, "processes": [_facts(each) for each in imports]})
    else:
        title = f"What each process imports of {len(discover().definitions)} models"
        print_rows([_facts(each) for each in imports], ("process", "parts", "libraries"), title=title, empty="")
        for problem in problems:
            errors.print(f"[red]error[/]: {escape(problem)}", soft_wrap=True)
        if not problems:
            console.print("\nEvery model package is sound.")
    raise typer.Exit(1 if problems else 0)


def _known_processes(names: list[str]) -> list[str]:
    odd = [name for name in names if name not in PARTS_OF_PROCESS]
    if odd:
        raise typer.BadParameter(
            f"{odd[0]!r} is no process; name one of {', '.join(PARTS_OF_PROCESS)}", param_hint="--process"
        )
    return names


def _looked_at(process: str) -> ProcessImports | str:
    try:
        return imports_of(process)
    except InspectionError as error:
        return str(error)


def _facts(imports: ProcessImports) -> dict[str, Any]:
    parts = dict.fromkeys(part.part for part in imports.parts)
    return {"process": imports.process, "parts": list(parts), "libraries": imports.libraries}


async def _registered(folder: Path) -> set[ModelType] | None:
    """Return the models that the installation's database knows, or None if none runs."""
    try:
        return set(await reading(folder, lambda connection: ModelRepository(connection).known()))
    except SettingsError:
        return None  # nothing was started in this folder
    except DATABASE_SILENT:
        return None


def _row(definition: ModelDefinition, registered: set[ModelType] | None) -> dict[str, Any]:
    return {
        "model_type": definition.model_type,
        "title": definition.title,
        "distribution": discover().distributions[definition.model_type],
        "contract_version": definition.contract_version,
        "counts": definition.counts,
        "threshold": definition.threshold.threshold,
        "registered": None if registered is None else definition.model_type in registered,
        "metric": _metric(definition),
    }


def _absent(model_type: ModelType) -> dict[str, Any]:
    nothing = dict.fromkeys(COLUMNS)
    return {**nothing, "model_type": model_type, "distribution": NOT_HERE, "registered": True}


def _metric(definition: ModelDefinition) -> dict[str, Any] | None:
    try:
        metric = definition.gate.load().metric
    except ModelPackageError:
        return None  # `models check` says why
    return {"name": metric.name, "higher_is_better": metric.higher_is_better, "unit": metric.unit}


def _in_words(metric: Mapping[str, Any] | None) -> str | None:
    if metric is None:
        return None
    direction = "higher is better" if metric["higher_is_better"] else "lower is better"
    return f"{metric['name']}, {direction} ({metric['unit']})"
