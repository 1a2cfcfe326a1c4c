"""The tensors of a frame by DLPack: in place, with their device, read-only, and alive as long as a reader has them."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest
from faults import open_detector

from imkd_edge import Bundle, Detector
from imkd_edge.detector import DeviceTensor


class Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("device_type", "device_id", "ndim")),
        *((name, ctypes.c_uint8) for name in ("code", "bits")),
        ("lanes", ctypes.c_uint16),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("shape", "strides")),
        ("byte_offset", ctypes.c_uint64),
    ]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, since version 1.0."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("major", "minor")),
        *((name, ctypes.c_void_p) for name in ("context", "deleter")),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


class Unversioned(ctypes.Structure):
    """DLManagedTensor, before it."""

    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


FORMS = {b"dltensor_versioned": Versioned, b"dltensor": Unversioned}
USED = {name: b"used_" + name for name in FORMS}  # a capsule keeps the address of its name
READ_ONLY, FLOAT = 1, 2


def take(capsule: object, name: bytes):
    """The structure in the capsule, which then belongs to the reader."""
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    api.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
    managed = FORMS[name].from_address(api.PyCapsule_GetPointer(capsule, name))
    api.PyCapsule_SetName(capsule, USED[name])
    return managed


def give_back(managed) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)(ctypes.addressof(managed))


def values_of(managed) -> np.ndarray:
    """The values; device memory too, because the device is the host."""
    shape, strides = (
        [view[i] for i in range(managed.tensor.ndim)] for view in (managed.tensor.shape, managed.tensor.strides)
    )
    assert strides == [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(managed.tensor.data)).reshape(shape)


@pytest.fixture(params=["cpu", "cuda"])
def detector(request, bundle: Bundle, scene):
    made = open_detector(bundle, scene.rig, request.param)
    if made is None:
        pytest.skip("no cuda_on_host: DLPack of memory of a GPU is NOT tested (make test builds it)")
    made.infer(scene.frames, scene.points, None, scene.timestamp_ns)
    yield made
    made.close()


def tensor_of(detector: Detector) -> DeviceTensor:
    return detector.device_tensors()["heatmap"]


@pytest.mark.parametrize("name", FORMS)
def test_a_reader_gets_the_memory_itself_and_its_device(detector: Detector, name: bytes) -> None:
    tensor, expected = tensor_of(detector), detector.tensors()["heatmap"]
    device = (2, 0) if detector.device == "cuda" else (1, 0)  # kDLCUDA, kDLCPU
    capsule = tensor.__dlpack__(stream=1, max_version=(1, 3) if b"versioned" in name else None)
    managed = take(capsule, name)
    t = managed.tensor
    assert (t.device_type, t.device_id) == tensor.__dlpack_device__() == device
    assert (t.data, t.byte_offset, t.code, t.bits, t.lanes) == (tensor.address, 0, FLOAT, 32, 1)
    assert np.array_equal(values_of(managed), expected)
    if name == b"dltensor_versioned":
        assert (managed.major, managed.flags) == (1, READ_ONLY)
    give_back(managed)


@pytest.mark.parametrize("name", FORMS)
def test_the_memory_lives_until_the_reader_gives_it_back(detector: Detector, name: bytes) -> None:
    expected, core = detector.tensors()["heatmap"], weakref.ref(detector._core)
    managed = take(tensor_of(detector).__dlpack__(max_version=(1, 0) if b"versioned" in name else (0, 8)), name)
    detector.close()
    gc.collect()
    assert core() is not None and np.array_equal(values_of(managed), expected)
    give_back(managed)
    gc.collect()
    assert core() is None


def test_a_capsule_that_nobody_takes_frees_its_tensor(detector: Detector) -> None:
    core = weakref.ref(detector._core)
    capsules = [tensor_of(detector).__dlpack__(max_version=version) for version in (None, (1, 0))]
    detector.close()
    gc.collect()
    assert core() is not None
    capsules.clear()
    gc.collect()
    assert core() is None


@pytest.mark.parametrize("arguments", [{"copy": True}, {"dl_device": (3, 0)}, {"dl_device": (2, 1)}])
def test_a_copy_or_another_device_is_refused(detector: Detector, arguments: dict) -> None:
    with pytest.raises(BufferError, match="copy it"):
        tensor_of(detector).__dlpack__(**arguments)
    device = tensor_of(detector).__dlpack_device__()
    assert tensor_of(detector).__dlpack__(copy=False, dl_device=device) is not None


def test_numpy_reads_the_cpus_tensors_in_place(bundle: Bundle, scene) -> None:
    with Detector(bundle, scene.rig, threads=1) as detector:
        detector.infer(scene.frames, scene.points, None, scene.timestamp_ns)
        for name, expected in detector.tensors().items():
            array = np.from_dlpack(detector.device_tensors()[name])
            assert array.ctypes.data == detector.device_tensors()[name].address and np.array_equal(array, expected)
            if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # it reads DLPack 1.0
                assert not array.flags.writeable
