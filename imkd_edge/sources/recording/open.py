"""Opens the container of a recording by its files."""

from __future__ import annotations

from pathlib import Path

from imkd_edge.errors import Error
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.recording.bag import Bag
from imkd_edge.sources.recording.container import Container, bag_files
from imkd_edge.sources.recording.mcap_file import McapFiles


def open_container(path: Path) -> Container:
    """The container of an MCAP file, a .db3 file or a bag's folder.

    Raises: Error missing_extra, source_missing_file, source_unknown.
    """
    if path.is_dir():
        files = bag_files(path)
        if files and files[0].suffix == ".mcap" and not _compressed(path):
            return McapFiles(path, files)
        return Bag(path)
    return McapFiles(path, [path]) if path.suffix.lower() == ".mcap" else Bag(path)


def _compressed(folder: Path) -> bool:
    """Whether rosbag2 compressed the files or messages of a bag as a whole, outside of MCAP."""
    try:
        text = read_bytes(folder / "metadata.yaml").decode("utf-8", "replace").lower()
    except Error:
        return False
    modes = [line.partition(":")[2].strip(" '\"") for line in text.splitlines() if "compression_mode:" in line]
    return any(mode in ("file", "message") for mode in modes)
