"""An MCAP file or a bag of ROS 2 messages: opened, indexed, guessed and read frame by frame."""

import warnings

from fuzz import scratch

from imkd_edge.errors import Error
from imkd_edge.sources import open_source


def run(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ending = "db3" if data.startswith(b"SQLite") else "mcap"
        source = open_source(scratch.file(f"drive.{ending}", data))
        for name in source.names[:4]:
            try:
                source[name]
            except Error as fault:
                assert str(fault).startswith("error[E")
