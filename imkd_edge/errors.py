"""The one exception of the package and its catalogue of codes."""

from imkd_edge._core import Code, Error

__all__ = ["Code", "Error"]
