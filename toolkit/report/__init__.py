"""From results to what a person reads: terminal tables, Markdown, HTML, plots. The only room that prints tables.

The results themselves are made in validation/ and bench/, and lie as JSON in models/<name>/reports/.
"""

from toolkit.report.report import ReportResult, report

__all__ = ["ReportResult", "report"]
