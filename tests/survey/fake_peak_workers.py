"""Fake peak workers, which reply with the protocol's own classes."""

from __future__ import annotations

from harness.process.handle import WorkerError
from harness.process.protocol import (
    DescribeDevice,
    DeviceDescription,
    MeasureArithmetic,
    MeasureBandwidth,
    MeasureDeviceBandwidth,
    MeasureDeviceProduct,
    MeasuredRate,
    MeasureProduct,
    reply_type,
)
from harness.record import Status

MIB = 2**20
#: Rates of the fake workers, in flop per second and bytes per second.
GEMMS = {"numpy": 80.0, "torch.mm": 70.0, "torch oneDNN": 90.0, "jax": 60.0}
DEVICE_GEMMS = {("float32", "ieee"): 50.0, ("float64", "ieee"): 25.0, ("float32", "tf32"): 400.0}
DEVICE_HALF_GEMM, DEVICE_L2, DEVICE_MEMORY = 800.0, 5.0, 3.0
NO_NUMBA = MeasuredRate(None, "Numba is not installed")


def device_product(request):
    return MeasuredRate(DEVICE_GEMMS.get((request.dtype, request.precision), DEVICE_HALF_GEMM), "a GEMM")


def device_bandwidth(request):
    return MeasuredRate(DEVICE_L2 if request.size_bytes < 40 * MIB else DEVICE_MEMORY, "copies")


class FakePeakWorker:
    def __init__(self, answers):
        self._answers = answers
        self.alive = True
        self.requests = []

    def request(self, request, limit_seconds):
        self.requests.append(request)
        reply = self._answers[type(request)](request)
        if isinstance(reply, Exception):
            self.alive = "died" not in str(reply)
            raise reply
        assert type(reply) is reply_type(request)
        return reply


class FakeWorkers:
    """All peak workers of a run; a test replaces entries of ``answers``."""

    def __init__(self):
        self.answers = {
            MeasureArithmetic: lambda request: MeasuredRate(100.0, "FMA chains"),
            MeasureBandwidth: lambda request: MeasuredRate(10.0, request.library),
            MeasureProduct: lambda request: MeasuredRate(GEMMS[request.library], "a BLAS"),
            DescribeDevice: lambda request: DeviceDescription("a GPU", 40 * MIB),
            MeasureDeviceProduct: device_product,
            MeasureDeviceBandwidth: device_bandwidth,
        }
        self.refused = ()
        self.running = {}
        self.started = []

    def peak_worker(self, name, device="cpu", variables=None):
        assert not self.running, "one at a time"
        if name in self.refused:
            raise WorkerError(Status.FAILED, f"{name} did not start")
        self.running[name] = FakePeakWorker(self.answers)
        self.started.append((name, device, variables))
        return self.running[name]

    def discard_peak_worker(self, name):
        self.running.pop(name, None)

    def answer_if(self, kind, condition, reply):
        """Replace the answers to requests of a class that fulfil a condition."""
        usual = self.answers[kind]
        self.answers[kind] = lambda request: reply if condition(request) else usual(request)
