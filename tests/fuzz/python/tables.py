"""A topic map and a training configuration, in TOML."""

from fuzz import scratch

from imkd_edge.errors import Error
from imkd_edge.sources.recording.topic_map import read_map
from imkd_edge.training.config import from_dict, read_tree


def run(data: bytes) -> None:
    path = scratch.file("table.toml", data)
    try:
        read_map(path)
    except Error as fault:
        assert str(fault).startswith("error[E")
    tree, _ = read_tree(path)
    from_dict(tree, str(path))
