"""The Detector on device "cuda", kernels compiled for the host and ONNX Runtime as its engine, against device "cpu"."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import Late, core_or_skip

import imkd_edge.detector
from imkd_edge import Bundle, Detector, _core, ops
from imkd_edge.bundle import shipped
from imkd_edge.checks import selftest
from imkd_edge.engines import Engine, TensorInfo, make_engine
from imkd_edge.errors import Error
from imkd_edge.frames import Ego
from imkd_edge.sources import open_source

cuda = core_or_skip()


@pytest.fixture
def on_cuda(monkeypatch):
    """A Detector whose core has the CUDA frame loop."""

    def make(*args, **options) -> Detector:
        with monkeypatch.context() as patch:
            patch.setattr(_core, "load_for_device", cuda.load_for_device)
            patch.setattr(imkd_edge.detector, "_core", cuda)
            return Detector(*args, device="cuda", **{"engine": "onnxruntime", **options})

    return make


def infer(detector: Detector, sample):
    times = sample.camera_timestamps_ns or None
    return detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def assert_same(result, expected) -> None:
    assert len(result.boxes) == len(expected.boxes)
    assert close(result.boxes, expected.boxes) and close(result.scores, expected.scores)
    assert np.array_equal(result.labels, expected.labels)
    assert result.health == expected.health


@pytest.mark.parametrize("order", ["fwd", "shuffle:3"])
def test_a_real_frame_gives_the_boxes_of_the_cpu(on_cuda, shared_data: Path, order, monkeypatch) -> None:
    monkeypatch.setenv("GPUHOST_ORDER", order)
    source = open_source(shared_data / "astyx")
    names = [name for name in ("000105", "000258") if name in source.names] or source.names[:2]
    bundle, boxes = Bundle.load("astyx-lite"), 0
    with (
        on_cuda(bundle, source[names[0]].rig, threads=1) as on_gpu,
        Detector(bundle, source[names[0]].rig, threads=1) as on_cpu,
    ):
        assert (on_gpu.device, on_cpu.device) == ("cuda", "cpu")
        for name in names:
            sample = source[name]
            for detector in (on_gpu, on_cpu):
                detector.set_rig(sample.rig)
            result = infer(on_cpu, sample)
            assert_same(infer(on_gpu, sample), result)
            for key, tensor in on_cpu.tensors().items():
                assert close(on_gpu.tensors()[key], tensor), key
            boxes += len(result.boxes)
    assert boxes > 3


@pytest.mark.parametrize("bundle", shipped())
def test_the_golden_drive_gives_what_the_exporters_cpu_gave(on_cuda, monkeypatch, bundle) -> None:
    """The bundle's self-test: each tensor and box of six frames in order, one without a sensor, one without a pose."""
    detectors = []

    def make(bundle, rig, device, engine, threads) -> Detector:
        detectors.append(on_cuda(bundle, rig, threads=threads))
        return detectors[-1]

    monkeypatch.setattr(selftest, "Detector", make)
    differences = selftest.check_golden(bundle, threads=1)
    assert selftest.beyond_tolerance(differences) == {} and differences["labels"] == 0
    assert [detector.device for detector in detectors] == ["cuda"]


class HalfEngine(Engine):
    """ONNX Runtime with float16 tensors and the context's channels last, as build-engine builds a part in float16."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._inner = make_engine("onnxruntime", threads)
        # Tensor -> the Detector's float16 array, ONNX Runtime's float32 array.
        self._arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def name(self) -> str:
        return "float16"

    def load(self, onnx_path: str) -> None:
        self._inner.load(onnx_path)

    def inputs(self) -> list[TensorInfo]:
        return [TensorInfo(info.name, info.shape, "float16") for info in self._inner.inputs()]

    def outputs(self) -> list[TensorInfo]:
        return [
            TensorInfo(i.name, np.moveaxis(np.empty(i.shape), 1, axis_of(i.name)).shape, "float16")
            for i in self._inner.outputs()
        ]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        assert array.dtype == np.float16
        shape = next(info.shape for info in [*self._inner.inputs(), *self._inner.outputs()] if info.name == tensor)
        self._arrays[tensor] = array, np.zeros(shape, np.float32)
        self._inner.bind(tensor, self._arrays[tensor][1])

    def run(self) -> None:
        for info in self._inner.inputs():
            half, full = self._arrays[info.name]
            full[...] = half
        self._inner.run()
        for name in {info.name for info in self._inner.outputs()} & set(self._arrays):
            half, full = self._arrays[name]
            half[...] = np.moveaxis(full, 1, axis_of(name))


def axis_of(name: str) -> int:
    """The axis of the channels."""
    return 3 if name == "context" else 1


def nmse(values: np.ndarray, expected: np.ndarray) -> float:
    values, expected = values.astype(np.float64), expected.astype(np.float64)
    return float(((values - expected) ** 2).sum() / max((expected**2).sum(), 1e-30))


def drive(scenes, *detectors: Detector):
    """Yields the results of all detectors on each scene; consecutive scenes are 4 m and half a second apart."""
    for i, scene in enumerate(scenes):
        pose = np.eye(4)
        pose[0, 3] = 4.0 * i
        for detector in detectors:
            detector.set_rig(scene.rig)
        at = scene.timestamp_ns + i * 500_000_000
        yield tuple(d.infer(scene.frames, scene.points, Ego(T_world_ego=pose), at) for d in detectors)


def test_a_real_frame_through_float16_engines(on_cuda, shared_data: Path, monkeypatch) -> None:
    """Each op has NMSE 1e-5 to the CPU's on equal input; the boxes are those of the CPU; any order gives equal bits."""
    source = open_source(shared_data / "astyx")
    sample = source["000105" if "000105" in source.names else source.names[0]]
    bundle, runs = Bundle.load("astyx-lite"), []
    for order in ("fwd", "shuffle:3"):
        monkeypatch.setenv("GPUHOST_ORDER", order)
        with on_cuda(bundle, sample.rig, threads=1, engine=HalfEngine) as detector:
            result, tensors = infer(detector, sample), detector.tensors()
            types = {name: (tensor.dtype, tensor.shape) for name, tensor in detector.device_tensors().items()}
        runs.append(b"".join(tensor.tobytes() for tensor in tensors.values()) + result.boxes.tobytes())
    assert runs[0] == runs[1]
    assert {dtype for dtype, _ in types.values()} == {"float16"}
    assert types["context"][1][3] == bundle.spec.context_channels
    spec = bundle.spec
    camera_bev = ops.lift(spec, ops.lift_table(spec, sample.rig), tensors["depth"], tensors["context"])
    ground = ops.ground_of(spec, sample.rig)
    boxes, scores, labels = ops.decode(spec, tensors["heatmap"][0], tensors["box"][0], ground)
    assert nmse(tensors["camera_bev"][0], camera_bev) <= 1e-5 and np.array_equal(result.labels, labels)
    # The velocity is not trained: the detector leaves it out.
    assert close(result.boxes[:, :7], boxes[:, :7]) and close(result.scores, scores)
    with Detector(bundle, sample.rig, threads=1) as on_cpu:
        expected, exact = infer(on_cpu, sample), on_cpu.tensors()
    assert all(nmse(tensors[name], exact[name]) <= 1e-5 for name in ("images", "radar_grid"))
    assert {name: nmse(tensors[name], exact[name]) for name in exact if nmse(tensors[name], exact[name]) > 1e-4} == {}
    # Matched by position: of two nearly equal scores either may come first.
    a, b = (np.argsort(r.boxes[:, 0]) for r in (result, expected))
    assert len(a) == len(b) > 3 and np.array_equal(result.labels[a], expected.labels[b])
    assert np.abs(result.boxes[a, :3] - expected.boxes[b, :3]).max() < 0.05
    assert np.abs(result.scores[a] - expected.scores[b]).max() < 0.01


def test_the_past_and_the_maps_of_float16_engines(on_cuda, history_bundle: Bundle, make_scene) -> None:
    scenes = [make_scene(seed=seed) for seed in range(4)]
    options = {"debug": True, "threads": 1}
    with on_cuda(history_bundle, engine=HalfEngine, **options) as on_gpu, Detector(history_bundle, **options) as on_cpu:
        for i, (a, b) in enumerate(drive(scenes, on_gpu, on_cpu)):
            assert a.health.past_frames == b.health.past_frames == min(i, 3)
            pairs = [(on_gpu.tensors()[name], tensor) for name, tensor in on_cpu.tensors().items()]
            pairs += [
                (a.segmentation, b.segmentation),
                *((a.debug[name], b.debug[name]) for name in ("i_cam", "i_rad")),
            ]
            assert max(nmse(x, y) for x, y in pairs if y.any()) <= 1e-4


def test_the_past_and_the_maps_are_those_of_the_cpu(on_cuda, history_bundle: Bundle, make_scene) -> None:
    scenes = [make_scene(seed=seed) for seed in range(5)]
    with (
        on_cuda(history_bundle, debug=True, threads=1) as on_gpu,
        Detector(history_bundle, debug=True, threads=1) as on_cpu,
    ):
        for i, (a, b) in enumerate(drive(scenes, on_gpu, on_cpu)):
            assert_same(a, b)
            assert a.health.past_frames == min(i, 3)
            assert close(a.segmentation, b.segmentation) and set(a.debug) == set(b.debug) == {"i_cam", "i_rad"}
            assert all(close(a.debug[name], b.debug[name]) for name in b.debug)


def test_views_of_any_layout_are_staged(on_cuda, bundle: Bundle, scene) -> None:
    wide = {name: np.repeat(np.repeat(image, 2, axis=0), 2, axis=1) for name, image in scene.frames.items()}
    layouts = {
        "bgr": lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1],
        "upside down": lambda image: np.ascontiguousarray(image[::-1])[::-1],
        "planar": lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
        "with alpha": lambda image: np.dstack([image, image[..., :1]])[..., :3],
    }
    with on_cuda(bundle, scene.rig, threads=2) as on_gpu, Detector(bundle, scene.rig, threads=1) as on_cpu:
        result = infer(on_cpu, scene)
        for layout, change in layouts.items():
            frames = {name: change(image) for name, image in scene.frames.items()}
            assert all(np.array_equal(frames[name], scene.frames[name]) for name in frames), layout
            assert_same(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns), result)
        every_second = {name: image[::2, ::2] for name, image in wide.items()}
        assert_same(on_gpu.infer(every_second, scene.points, None, scene.timestamp_ns), result)


class OnDevice:
    """An image in the device's memory, as CuPy or torch describe one."""

    def __init__(self, array: np.ndarray, **changes: object) -> None:
        address, self._owner = cuda.device_copy(np.ascontiguousarray(array))
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": "|u1",
            "data": (address, True),
            "version": 3,
            **changes,
        }


class Tensor:
    """A torch tensor that reports the GPU as its device; torch writes the DLPack capsule."""

    def __init__(self, array: np.ndarray) -> None:
        self._tensor = pytest.importorskip("torch").from_numpy(array)

    def __dlpack__(self, **_: object) -> object:
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_images_may_be_on_the_gpu(on_cuda, bundle: Bundle, scene) -> None:
    with on_cuda(bundle, scene.rig, threads=1) as on_gpu, Detector(bundle, scene.rig, threads=1) as on_cpu:
        result = infer(on_cpu, scene)
        for form in (OnDevice, Tensor):
            frames = {name: form(image) for name, image in scene.frames.items()}
            assert_same(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns), result)
        transposed = {name: np.ascontiguousarray(image.transpose(1, 0, 2)) for name, image in scene.frames.items()}
        strides = {name: (3, 3 * image.shape[0], 1) for name, image in scene.frames.items()}
        frames = {
            name: OnDevice(transposed[name], shape=scene.frames[name].shape, strides=strides[name])
            for name in transposed
        }
        assert_same(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns), result)
        frames = {name: Tensor(np.ascontiguousarray(image[:, ::-1])[:, ::1]) for name, image in scene.frames.items()}
        assert not np.array_equal(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns).scores, result.scores)
        with pytest.raises(Error) as raised:
            on_cpu.infer({"AHEAD": OnDevice(scene.frames["AHEAD"])}, {})
        assert raised.value.code == "E0201" and "cuda" in raised.value.fix


@pytest.mark.parametrize("form", ["interface", "before 1.0", "read-only 1.0"])
def test_an_image_that_a_stream_still_writes_is_waited_for(on_cuda, bundle: Bundle, scene, form: str) -> None:
    if form.startswith("read-only") and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("this NumPy exports no DLPack 1.0: versioned capsules are NOT tested")
    with on_cuda(bundle, scene.rig, threads=1) as on_gpu, Detector(bundle, scene.rig, threads=1) as on_cpu:
        expected = infer(on_cpu, scene)
        frames = {name: Late(cuda, image, form) for name, image in scene.frames.items()}
        assert_same(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns), expected)
        if form != "interface":
            stream = on_gpu.device_tensors()["heatmap"].stream
            assert stream > 2 and {image.seen["stream"] for image in frames.values()} == {stream}
        assert ("max_version" in frames["AHEAD"].seen) == (form == "read-only 1.0")


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned of dlpack.h."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("major", "minor")),
        *((name, ctypes.c_void_p) for name in ("context", "deleter")),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("device_type", "device_id", "ndim")),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


@pytest.mark.parametrize(("major", "minor", "flags", "taken"), [(1, 0, 1, True), (1, 9, 3, True), (2, 0, 0, False)])
def test_dlpack_versions_and_flags(on_cuda, bundle: Bundle, scene, major, minor, flags, taken) -> None:
    """A minor version adds nothing that a reader must know, another major one may; a read-only tensor can be read."""
    image = scene.frames["AHEAD"]
    address, _owner = cuda.device_copy(image)
    shape = (ctypes.c_int64 * 3)(*image.shape)
    managed = Versioned(major, minor, None, None, flags, address, 2, 0, 3, 1, 8, 1, shape, None, 0)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

    class Image:
        def __dlpack__(self, stream: int, max_version: tuple[int, int]) -> object:
            return new(ctypes.addressof(managed), b"dltensor_versioned", None)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    with on_cuda(bundle, scene.rig, threads=1) as detector:
        if not taken:
            with pytest.raises(Error) as raised:
                detector.infer({"AHEAD": Image()}, {})
            assert raised.value.code == "E0201" and "version" in raised.value.what
            return
        result = detector.infer({"AHEAD": Image()}, {}, None, scene.timestamp_ns)
        expected = detector.infer({"AHEAD": image}, {}, None, scene.timestamp_ns)
        assert_same(result, expected)


@pytest.mark.parametrize("stream", [0, "1", 1.5, -3])
def test_a_stream_that_the_interface_forbids_is_refused(on_cuda, bundle: Bundle, scene, stream: object) -> None:
    with on_cuda(bundle, scene.rig, threads=1) as detector:
        with pytest.raises(Error) as raised:
            detector.infer({"AHEAD": OnDevice(scene.frames["AHEAD"], stream=stream)}, {})
        assert raised.value.code == "E0201" and "stream" in raised.value.what
        result = detector.infer({"AHEAD": OnDevice(scene.frames["AHEAD"], stream=None)}, {})
        assert result.health.sensors["AHEAD"] == "ok"


def test_outputs_are_handed_out_with_the_stream_that_writes_them(on_cuda, bundle: Bundle, scene) -> None:
    with on_cuda(bundle, scene.rig, threads=1) as detector, Detector(bundle, scene.rig, threads=1) as on_cpu:
        infer(detector, scene), infer(on_cpu, scene)
        tensor = detector.device_tensors()["heatmap"]
        assert tensor.__cuda_array_interface__["stream"] == tensor.stream > 2
        assert on_cpu.device_tensors()["heatmap"].stream == 0


def test_a_detector_says_why_its_frames_are_not_replayed(on_cuda, bundle: Bundle, scene) -> None:
    with on_cuda(bundle, scene.rig, threads=1) as detector, Detector(bundle, scene.rig, threads=1) as on_cpu:
        assert infer(detector, scene).replayed is infer(on_cpu, scene).replayed is False
        assert detector.why_not_replayed == "the engine onnxruntime does not run on the GPU"
        assert on_cpu.why_not_replayed == "frames run on the CPU"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"typestr": "<f4"}, "E0201"),
        ({"shape": (180, 320)}, "E0202"),
        ({"shape": (180, 320, 4)}, "E0202"),
        ({"shape": (90, 320, 3)}, "E0202"),
        ({"data": (0, True)}, "E0202"),
        ({"data": None}, "E0201"),
        ({"strides": (960, 3)}, "E0201"),
    ],
)
def test_a_bad_image_on_the_gpu_has_its_code(on_cuda, bundle: Bundle, scene, change, code) -> None:
    with on_cuda(bundle, scene.rig, threads=1) as detector:
        with pytest.raises(Error) as raised:
            detector.infer({"AHEAD": OnDevice(scene.frames["AHEAD"], **change)}, {})
        assert raised.value.code == code and "AHEAD" in raised.value.where


def test_device_tensors_are_not_copies(on_cuda, bundle: Bundle, scene) -> None:
    with Detector(bundle, scene.rig, threads=1) as on_cpu, on_cuda(bundle, scene.rig, threads=1) as detector:
        infer(on_cpu, scene), infer(detector, scene)
        for name, tensor in on_cpu.device_tensors().items():
            assert not hasattr(tensor, "__cuda_array_interface__")
            assert np.array_equal(np.asarray(tensor), on_cpu.tensors()[name])
        for name, tensor in detector.device_tensors().items():
            interface = tensor.__cuda_array_interface__
            assert not hasattr(tensor, "__array_interface__") and interface["typestr"] == "<f4"
            count = int(np.prod(interface["shape"]))
            # The address is valid here, because the device is the host.
            memory = np.ctypeslib.as_array((ctypes.c_float * count).from_address(interface["data"][0]))
            assert np.array_equal(memory.reshape(interface["shape"]), detector.tensors()[name])


def nv12(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cv2 = pytest.importorskip("cv2")
    height, width = image.shape[:2]
    planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    u, v = planes[height:].reshape(2, height // 2, width // 2)
    return planes[:height], np.stack([u, v], axis=-1)


def test_nv12_is_staged_with_both_planes(on_cuda, bundle: Bundle, scene) -> None:
    planes = {name: nv12(image) for name, image in scene.frames.items()}
    padded = {
        name: (np.pad(y, ((0, 0), (0, 13)))[:, :-13], np.pad(uv, ((0, 0), (0, 9), (0, 0)))[:, :-9])
        for name, (y, uv) in planes.items()
    }
    with on_cuda(bundle, scene.rig, threads=1) as on_gpu, Detector(bundle, scene.rig, threads=1) as on_cpu:
        for frames in (planes, padded, {name: (*both, "bt709_full") for name, both in planes.items()}):
            result = on_cpu.infer(frames, scene.points, None, scene.timestamp_ns)
            assert_same(on_gpu.infer(frames, scene.points, None, scene.timestamp_ns), result)
            assert close(on_gpu.tensors()["images"], on_cpu.tensors()["images"])


def test_without_a_gpu_auto_is_the_cpu_and_says_why(bundle: Bundle, scene) -> None:
    try:
        _core.require_cuda()
    except Error as error:
        reason = error
    else:
        pytest.skip("this machine has a GPU and a core with CUDA")
    with Detector(bundle, scene.rig) as detector:
        assert (detector.device, detector.engine) == ("cpu", "onnxruntime")
        assert detector.why_not_cuda == str(reason) and reason.code == "E0511"
    with Detector(bundle, scene.rig, device="cpu") as detector:
        assert detector.why_not_cuda == ""
    with pytest.raises(Error) as raised:
        Detector(bundle, scene.rig, device="cuda")
    assert raised.value.code == "E0511"
    with pytest.raises(Error) as raised:
        Detector(bundle, scene.rig, device="gpu")
    assert raised.value.code == "E0511" and "cuda" in raised.value.fix


def test_device_auto_with_a_named_engine_is_the_cpu(bundle: Bundle, scene) -> None:
    engines = []

    def factory(threads: int):
        engines.append(make_engine("onnxruntime", threads))
        return engines[-1]

    with Detector(bundle, scene.rig, engine=factory) as detector:
        assert (detector.device, len(engines), detector.why_not_cuda) == ("cpu", 2, "")
