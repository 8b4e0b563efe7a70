"""The devices, by URI scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_sdk._registry import Registry
from edge_sdk.errors import DeviceError

if TYPE_CHECKING:
    from edge_sdk.devices.base import Device

DEVICES = Registry("device", "edge_sdk.devices", {"local": "edge_sdk.devices.local:LocalDevice"}, DeviceError)


def open_device(uri: str) -> Device:
    """The device behind a URI.

    Args:
        uri: ``local``, or ``SCHEME://REST`` of a registered scheme.

    Raises:
        DeviceError: No device of that scheme is known.
    """
    scheme = uri.partition("://")[0]
    return DEVICES.load(scheme)(uri)
