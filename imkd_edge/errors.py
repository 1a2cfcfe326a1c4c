"""Error, the only exception of the package, and Code, its catalogue of codes."""

from imkd_edge._core import Code, Error

__all__ = ["Code", "Error"]
