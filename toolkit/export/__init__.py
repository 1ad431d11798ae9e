"""From a checkpoint to artifacts: one small module a format, each result run and compared before it is accepted.

To add a format: a module with `convert` (see formats.py) and a line in EXPORTERS.
"""

from toolkit.export.export import ExportResult, check_writable, export
from toolkit.export.formats import EXPORTERS, Options

__all__ = ["EXPORTERS", "ExportResult", "Options", "check_writable", "export"]
