"""The verb: everything known of a model → one HTML page that needs nothing else, and Markdown of the same."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.printable import line
from toolkit.workspace import Workspace
from toolkit.writing import check_files, write_text

HTML, MARKDOWN = "report.html", "report.md"
_SPECIAL = re.compile(
    r"[\\`*_\[\]|~#$]"  # within a line or a table cell
    r"|^[-+=](?=[-+=\s]|$)|(?<=^\d)[.)]"  # at its beginning: a list, a heading's underline
    r"|(?<=\w):(?=//)|(?<=\bwww)\."  # what GitHub would turn into a link
)


@dataclass(frozen=True)
class ReportResult:
    html: Path
    markdown: Path


def report(workspace: Workspace, *, data_dir: Path | None = None) -> ReportResult:
    """Writes reports/report.html and .md. Only the checkpoint is needed; what is absent is said to be absent.

    Raises CheckpointError without a checkpoint, ToolkitError naming a file of the workspace that is damaged.
    """
    from toolkit.report.page import page
    from toolkit.report.sources import read

    result = ReportResult(workspace.reports / HTML, workspace.reports / MARKDOWN)
    check_files(workspace.folder, result.html, result.markdown)
    content = page(read(workspace), data_dir)
    write_text(result.html, render(f"{HTML}.j2", content), workspace.folder)
    write_text(result.markdown, render(f"{MARKDOWN}.j2", content), workspace.folder)
    return result


def render(template: str, content: Any) -> str:
    """Escape whatever is not marked as safe, and make it printable: labels and names come from files that others wrote."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("toolkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup | Undefined) else line(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markdown
    return environment.get_template(template).render(page=content)


def markdown(text: str) -> Any:
    """Return text as Markdown shows it literally, on one line: no markup, no HTML, no link, no new table cell."""
    from markupsafe import Markup

    one_line = " ".join(line(text).split())
    escaped = _SPECIAL.sub(r"\\\g<0>", one_line)
    return Markup(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
