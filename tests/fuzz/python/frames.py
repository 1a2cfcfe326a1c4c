"""A drive folder: its frames.jsonl, rig.json and dataset.json, with the sensors' files absent."""

import warnings

from fuzz import scratch

from imkd_edge.errors import Error
from imkd_edge.sources.folder import FolderSource
from imkd_edge.sources.folder.validate import problems


def run(data: bytes) -> None:
    for name, content in zip(("frames.jsonl", "rig.json", "dataset.json"), scratch.parts(data, 3), strict=True):
        scratch.file(f"drive/{name}", content)
    found = problems(scratch.FOLDER / "drive")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of absent files
        source = FolderSource(scratch.FOLDER / "drive")
        for name in source.names:
            try:
                source[name]
            except Error as fault:
                assert found, f"reading finds a fault that validating does not: {fault}"
