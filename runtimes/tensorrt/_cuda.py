"""The few calls of NVIDIA's driver that running an engine takes: memory, a stream, events, a captured graph.

The driver's library comes with the GPU's driver, and its calls keep their form over its versions. TensorRT works on
the same context: the device's primary one.
Source: CUDA Driver API reference.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_OUT_OF_MEMORY = 2
_NAME_BYTES = 256
_BUS_BYTES = 32


class CudaError(RuntimeError):
    """A call of the driver failed."""


class OutOfMemory(CudaError):
    """The GPU's memory is full."""


class Driver:
    """The driver with its first GPU.

    Args:
        library: Name or path of the driver's library.

    Raises:
        CudaError: There is no driver or no GPU.
    """

    def __init__(self, library=LIBRARY):
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaError("the NVIDIA driver's library %s is not on this machine" % library) from error
        self._library.cuGetErrorName.argtypes = [c_int, POINTER(c_char_p)]
        self.call("cuInit", c_uint(0))
        count = c_int()
        self.call("cuDeviceGetCount", byref(count))
        if count.value < 1:
            raise CudaError("the NVIDIA driver sees no GPU")
        self._device = c_int()
        self.call("cuDeviceGet", byref(self._device), c_int(0))
        name, bus = ctypes.create_string_buffer(_NAME_BYTES), ctypes.create_string_buffer(_BUS_BYTES)
        self.call("cuDeviceGetName", name, c_int(_NAME_BYTES), self._device)
        self.call("cuDeviceGetPCIBusId", bus, c_int(_BUS_BYTES), self._device)
        self.name, self.bus = name.value.decode(errors="replace"), bus.value.decode(errors="replace")
        self.capability = "%d.%d" % (self._attribute(_MAJOR), self._attribute(_MINOR))

    def use(self):
        """Makes the GPU's primary context the thread's."""
        context = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self.call("cuCtxSetCurrent", context)

    def memory(self):
        """Free and total bytes of the GPU."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def call(self, name, *arguments):
        """Calls a function of the driver.

        Raises:
            CudaError: It failed; its name and the driver's name of the error.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            words = c_char_p()
            self._library.cuGetErrorName(code, byref(words))
            kind = OutOfMemory if code == _OUT_OF_MEMORY else CudaError
            raise kind("%s failed: %s" % (name, words.value.decode() if words.value else code))

    def _attribute(self, which):
        value = c_int()
        self.call("cuDeviceGetAttribute", byref(value), c_int(which), self._device)
        return value.value


class Buffer:
    """As many bytes on the GPU, and as many beside them in main memory that it reaches directly.

    Attributes:
        device: Address on the GPU.
        host: Address in main memory.
        size: Bytes.
    """

    def __init__(self, driver, size):
        self._driver, self.size = driver, size
        device, host = c_ulonglong(), c_void_p()
        driver.call("cuMemAlloc_v2", byref(device), c_size_t(max(1, size)))
        self.device = device.value
        driver.call("cuMemAllocHost_v2", byref(host), c_size_t(max(1, size)))
        self.host = host.value

    def write(self, array):
        """Puts an array into the main memory's side."""
        ctypes.memmove(self.host, array.ctypes.data, array.nbytes)

    def read(self, array):
        """Fills an array from the main memory's side."""
        ctypes.memmove(array.ctypes.data, self.host, array.nbytes)

    def upload(self, stream):
        """Enqueues the copy to the GPU."""
        self._driver.call(
            "cuMemcpyHtoDAsync_v2", c_ulonglong(self.device), c_void_p(self.host), c_size_t(self.size), stream
        )

    def download(self, stream):
        """Enqueues the copy from the GPU."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2", c_void_p(self.host), c_ulonglong(self.device), c_size_t(self.size), stream
        )

    def free(self):
        """Gives both back."""
        self._driver.call("cuMemFree_v2", c_ulonglong(self.device))
        self._driver.call("cuMemFreeHost", c_void_p(self.host))


class Stream:
    """A stream of work. ``handle`` is what TensorRT takes."""

    def __init__(self, driver):
        self._driver = driver
        self.raw = c_void_p()
        driver.call("cuStreamCreate", byref(self.raw), c_uint(_NON_BLOCKING))
        self.handle = self.raw.value or 0

    def wait(self):
        """Waits until all work is done."""
        self._driver.call("cuStreamSynchronize", self.raw)

    def capture(self, work):
        """What ``work`` enqueues as a graph; call the result to enqueue it again."""
        driver, graph, ready = self._driver, c_void_p(), c_void_p()
        driver.call("cuStreamBeginCapture_v2", self.raw, c_int(_CAPTURE_THREAD_LOCAL))
        try:
            work()
        finally:
            driver.call("cuStreamEndCapture", self.raw, byref(graph))
        driver.call("cuGraphInstantiateWithFlags", byref(ready), graph, c_ulonglong(0))
        return lambda: driver.call("cuGraphLaunch", ready, self.raw)


class Event:
    """A mark in a stream."""

    def __init__(self, driver):
        self._driver, self._raw = driver, c_void_p()
        driver.call("cuEventCreate", byref(self._raw), c_uint(0))

    def record(self, stream):
        """Puts the mark behind what is enqueued."""
        self._driver.call("cuEventRecord", self._raw, stream.raw)

    def since(self, earlier):
        """Milliseconds since an earlier mark; both are passed."""
        span = c_float()
        self._driver.call("cuEventElapsedTime", byref(span), earlier._raw, self._raw)
        return span.value
