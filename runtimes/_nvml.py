"""The NVIDIA driver's management library (NVML), by ctypes: nothing has to be installed beside the driver.

What cannot be read raises `OSError` with the reason.

Source: NVML API reference, https://docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

from ctypes import CDLL, POINTER, Structure, byref, c_int, c_uint, c_ulonglong, c_void_p, create_string_buffer

LIBRARY = "libnvidia-ml.so.1"
SM_CLOCK, MEMORY_CLOCK = 1, 2
GPU_CORE = 0
PCI_BUS_LENGTH = 32

# nvmlClocksEventReasons of nvml.h. Idle, application clocks and a display's setting are no throttling: they
# do not come from heat or from a lack of power.
THROTTLE_REASONS = {
    0x0000000000000004: "software power cap",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000010: "sync boost with a slower GPU",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}


class Library:
    """The library, opened and initialised.

    Args:
        path: Its file.
    """

    def __init__(self, path=LIBRARY):
        try:
            self._nvml = CDLL(path)
        except OSError as error:
            raise OSError("the NVIDIA driver's library cannot be opened: %s" % error) from error
        self.call("nvmlInit_v2")

    def call(self, function, *arguments):
        """Calls a function of the library; a code other than 0 is an `OSError`."""
        try:
            code = getattr(self._nvml, function)(*arguments)
        except AttributeError as error:
            raise OSError("the NVIDIA driver's library has no %s" % function) from error
        if code:
            raise OSError("%s of the NVIDIA driver failed with code %d" % (function, code))

    def driver(self):
        """The driver's version, such as ``580.65.06``."""
        text = create_string_buffer(96)
        self.call("nvmlSystemGetDriverVersion", text, c_uint(len(text)))
        return text.value.decode("ascii", "replace")

    def cuda(self):
        """The newest CUDA that the driver runs, ``(major, minor)``."""
        version = c_int()
        self.call("nvmlSystemGetCudaDriverVersion_v2", byref(version))
        return version.value // 1000, version.value % 1000 // 10

    def gpus(self):
        """All GPUs that the driver sees, in its order. None of them is an `OSError`."""
        count = c_uint()
        self.call("nvmlDeviceGetCount_v2", byref(count))
        if not count.value:
            raise OSError("the NVIDIA driver sees no GPU")
        handles = [c_void_p() for _ in range(count.value)]
        for index, handle in enumerate(handles):
            self.call("nvmlDeviceGetHandleByIndex_v2", c_uint(index), byref(handle))
        return [Gpu(self, handle) for handle in handles]

    def gpu(self, bus):
        """The GPU at a PCI address such as ``0000:01:00.0``; programs number GPUs in orders of their own."""
        handle = c_void_p()
        self.call("nvmlDeviceGetHandleByPciBusId_v2", bus.encode("ascii"), byref(handle))
        return Gpu(self, handle)


class _Memory(Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class _Utilisation(Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class _Process(Structure):
    _fields_ = [
        ("pid", c_uint),
        ("used", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    ]


class Gpu:
    """One GPU. Each method is one question to the driver.

    Args:
        library: The `Library`.
        handle: NVML's handle of it.
    """

    def __init__(self, library, handle):
        self._library, self._handle = library, handle

    def name(self):
        """Its model."""
        text = create_string_buffer(96)
        self._library.call("nvmlDeviceGetName", self._handle, text, c_uint(len(text)))
        return text.value.decode("ascii", "replace")

    def capability(self):
        """Its compute capability, such as ``8.6``."""
        major, minor = c_int(), c_int()
        self._library.call("nvmlDeviceGetCudaComputeCapability", self._handle, byref(major), byref(minor))
        return "%d.%d" % (major.value, minor.value)

    def memory(self):
        """``(total, free)`` bytes."""
        found = _Memory()
        self._library.call("nvmlDeviceGetMemoryInfo", self._handle, byref(found))
        return found.total, found.free

    def utilisation(self):
        """Percent of the driver's last sample period in which something ran."""
        found = _Utilisation()
        self._library.call("nvmlDeviceGetUtilizationRates", self._handle, byref(found))
        return found.gpu

    def process_memory(self, pid):
        """Bytes that a process holds, or None where the driver does not tell: in a container it numbers others."""
        count = c_uint(256)
        found = (_Process * count.value)()
        pointer = POINTER(_Process)(found[0])
        self._library.call("nvmlDeviceGetComputeRunningProcesses_v3", self._handle, byref(count), pointer)
        for process in found[: count.value]:
            # Where it does not know the driver puts the largest number there is.
            if process.pid == pid and process.used < 2**63:
                return process.used
        return None

    def energy_mj(self):
        """Millijoules since the driver was loaded (Volta and newer)."""
        return self._figure("nvmlDeviceGetTotalEnergyConsumption", c_ulonglong)

    def power_mw(self):
        """Milliwatts now."""
        return self._figure("nvmlDeviceGetPowerUsage", c_uint)

    def clock_mhz(self, domain):
        """The clock now of `SM_CLOCK` or `MEMORY_CLOCK`."""
        return self._figure("nvmlDeviceGetClockInfo", c_uint, c_uint(domain))

    def most_clock_mhz(self, domain):
        """The highest clock of that domain."""
        return self._figure("nvmlDeviceGetMaxClockInfo", c_uint, c_uint(domain))

    def temperature_c(self):
        """Of the chip."""
        return self._figure("nvmlDeviceGetTemperature", c_uint, c_uint(GPU_CORE))

    def throttle_reasons(self):
        """What holds the clock down now, in words of `THROTTLE_REASONS`; empty where nothing does."""
        bits = self._figure("nvmlDeviceGetCurrentClocksThrottleReasons", c_ulonglong)
        return [reason for bit, reason in THROTTLE_REASONS.items() if bits & bit]

    def _figure(self, function, kind, *arguments):
        figure = kind()
        self._library.call(function, self._handle, *arguments, byref(figure))
        return figure.value
