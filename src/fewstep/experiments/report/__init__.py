"""Reports, from what is recorded in a folder: of a run as Markdown, and of anything as one HTML page."""

from fewstep.experiments.report.markdown import report

__all__ = ["report"]
