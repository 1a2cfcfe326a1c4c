"""The tracker of the C ABI gives the tracks of Python's."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from c_abi import Box, Result, TrackBox, TrackerOptions, Tracks, load
from helpers import TINY

from imkd_edge.frames import Ego
from imkd_edge.spec import ModelSpec
from imkd_edge.tracking import Track, Tracker


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return load()


@pytest.fixture
def handle(library: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    handle = ctypes.c_void_p(library.imkd_tracker_new())
    yield handle
    library.imkd_tracker_destroy(handle)
