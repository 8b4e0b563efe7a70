"""The devices, by URI scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_sdk._registry import Registry
from edge_sdk.errors import DeviceError, UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.devices.base import Device

DEVICES = Registry(
    "device",
    "edge_sdk.devices",
    {
        "local": "edge_sdk.devices.local:LocalDevice",
        "ssh": "edge_sdk.devices.ssh:SshDevice",
        "adb": "edge_sdk.devices.adb:AdbDevice",
    },
    DeviceError,
)


def open_device(uri: str, runner: str | None = None) -> Device:
    """The device behind a URI.

    Args:
        uri: ``local``, or ``SCHEME://REST`` of a registered scheme.
        runner: ``PATH[:KIND]`` of the user's own native runner, None for the one that Edge SDK brings.

    Raises:
        DeviceError: No device of that scheme is known, or it cannot be reached.
        UnsupportedError: A runner is named for this machine.
    """
    scheme = uri.partition("://")[0]
    if runner is None:
        return DEVICES.load(scheme)(uri)
    if scheme == "local":
        raise UnsupportedError(
            "--runner names a program for a device behind ssh:// or adb://; leave it out for 'local'."
        )
    return DEVICES.load(scheme)(uri, runner=runner)
