"""Stand-ins for devices, for tests without hardware: a phone behind the genuine adb, a board behind the genuine sshd.

They speak the real protocols to the real clients and run real commands on this machine. They are
never the hardware: what is measured on them says nothing about a phone or a board.
"""

from edge_sdk.testing._adb_server import AdbServer
from edge_sdk.testing._faults import KINDS, Fault
from edge_sdk.testing._phone import Phone
from edge_sdk.testing._processes import Process
from edge_sdk.testing._proxy import LinkProxy
from edge_sdk.testing._sshd import SshServer

__all__ = ["KINDS", "AdbServer", "Fault", "LinkProxy", "Phone", "Process", "SshServer"]
