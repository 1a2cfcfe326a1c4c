"""Whether recordings are fit for training: counts, statistics, and everything that contradicts itself."""

from imkd_edge.checks.data.gather import Survey, survey
from imkd_edge.checks.data.report import Finding, Report
from imkd_edge.checks.data.run import check

__all__ = ["Finding", "Report", "Survey", "check", "survey"]
