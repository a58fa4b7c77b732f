"""Renders the commands of `fincoach-learning` as a page for operators."""

from __future__ import annotations

from typing import Any

import typer.main

import stack.cli  # noqa: F401 - adds its commands to the app
from admin.cli.app import app
from tools.reference.markdown import first_paragraph, page, table


def parameter_row(parameter: Any) -> list[str]:  # noqa: ANN401 - typer's own click types are private
    """Return one argument or option as a row."""
    names = (
        ", ".join(parameter.opts)
        if parameter.param_type_name == "option"
        else (parameter.metavar or parameter.name.upper())
    )
    return [f"`{names}`", getattr(parameter, "help", None) or ""]


def command_section(name: str, command: Any) -> str:  # noqa: ANN401 - typer's own click types are private
    """Return the section of a command and its subcommands."""
    below = getattr(command, "commands", None)
    head = f"## {name}\n\n{first_paragraph(command.help)}"
    if below:
        return "\n\n".join([head, *(command_section(f"{name} {key}", each) for key, each in below.items())])
    rows = [parameter_row(parameter) for parameter in command.params]
    return f"{head}\n\n{table(['parameter', 'meaning'], rows)}" if rows else head


def render() -> str:
    """Return docs/reference/cli.md."""
    root: Any = typer.main.get_command(app)
    sections = [command_section(name, command) for name, command in root.commands.items()]
    return page("Command line", "`fincoach-learning COMMAND --help` shows the same.", *sections)
