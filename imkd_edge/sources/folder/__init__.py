"""The drive folder, the documented format for one's own recordings: reader, writer, validator.

docs/guide/drive-folder.md describes it. Its conventions end here; they are those of the product: ego frame x forward,
y left, z up, metres, radians, nanoseconds.
"""

from imkd_edge.sources.folder.problem import Problem
from imkd_edge.sources.folder.reader import FolderSource, is_folder
from imkd_edge.sources.folder.validate import problems
from imkd_edge.sources.folder.writer import FolderWriter

__all__ = ["FolderSource", "FolderWriter", "Problem", "is_folder", "problems"]
