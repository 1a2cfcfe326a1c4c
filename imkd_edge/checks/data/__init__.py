"""Whether recordings are fit for training: counts, statistics, and everything that contradicts itself."""

from imkd_edge.checks.data.check import check
from imkd_edge.checks.data.report import Finding, Report
from imkd_edge.checks.data.survey import Survey, survey

__all__ = ["Finding", "Report", "Survey", "check", "survey"]
