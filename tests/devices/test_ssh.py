"""SSH: the user's own client and settings, strict host keys, and words that mend."""

from __future__ import annotations

import pytest
from devices_remotes import QUICK

from edge_sdk.devices import open_device
from edge_sdk.devices.ssh import SshDevice
from edge_sdk.errors import DeviceError, LinkLostError, UnsupportedError
from edge_sdk.profiling.measure import measure
from edge_sdk.schema import load_target


def message_of(uri: str, **options) -> str:
    with pytest.raises(DeviceError) as caught, SshDevice(uri, **options):
        pass
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_it_tells_what_the_far_side_is(board) -> None:
    with open_device(board.uri) as device:
        about = device.describe()
    assert about.uri == board.uri
    assert about.abi in ("x86_64", "aarch64")
    assert "Linux" in about.os
    assert board.left_behind() == []


def test_an_alias_of_the_configuration_is_a_host(board) -> None:
    with open_device(f"ssh://{board.stand_in.alias}") as device:
        assert device.describe().uri == f"ssh://{board.stand_in.alias}"


def test_an_unknown_host_key_is_refused_with_the_line_that_mends_it(board) -> None:
    board.stand_in.forget_host()
    assert message_of(board.uri) == (
        f"device '{board.uri}': its host key is not known here, and unknown keys are not accepted. Compare its "
        f"fingerprint and accept it once by hand: ssh -p {board.link.port} 127.0.0.1"
    )


def test_a_changed_host_key_is_refused(board) -> None:
    board.stand_in.change_host_key()
    said = message_of(board.uri)
    assert "its host key is not the one that known_hosts holds" in said
    assert f"ssh-keygen -R '[127.0.0.1]:{board.link.port}'" in said


def test_a_key_that_is_not_let_in_is_told(board) -> None:
    (board.stand_in.folder / "authorized_keys").write_text("")
    said = message_of(board.uri)
    assert "it does not let us in" in said
    assert f"ssh-copy-id -p {board.link.port} 127.0.0.1" in said


def test_a_machine_that_does_not_listen_is_told(board) -> None:
    board.link.refuse()
    with pytest.raises(LinkLostError, match="at step 'connect': .*(refused|reset|closed)"), SshDevice(board.uri):
        pass


def test_an_unknown_name_is_told() -> None:
    assert "no machine of that name is known" in message_of("ssh://no-such-machine.invalid")


@pytest.mark.parametrize(
    "uri",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a b",
        "ssh://u:pass@h",
        "ssh://h/path",
        "ssh://h:0x1",
        "ssh://$(x)@h",
        "ssh://h;x",
    ],
)
def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    said = message_of(uri)
    assert "ssh://[user@]host[:port]" in said and "\n" not in said


def test_a_device_whose_home_cannot_be_written_is_told(board) -> None:
    (board.base.parent).joinpath("edge-sdk/objects").parent.mkdir(parents=True, exist_ok=True)
    (board.base / "objects").write_text("a file where a folder should be")
    assert "no folder can be made there for what is pushed" in message_of(board.uri)


def test_a_hostile_answer_does_no_harm(board) -> None:
    board.stand_in.fault("garbage", bytes=1 << 19)
    said = message_of(board.uri)
    assert said.isprintable()


def test_an_endless_answer_ends(board) -> None:
    board.stand_in.fault("endless")
    assert "it sent more than" in message_of(board.uri)
    assert board.left_behind() == []


def test_the_readers_of_a_jetsons_rails_are_there(board, bundle) -> None:
    target = load_target("jetson-orin-nano")
    with open_device(board.uri) as device:
        found = measure(bundle, device, target, timing=QUICK)
    reason = found.run.result.power.unavailable
    assert "ina3221" in reason and "jtop" in reason
    assert "power_rails" not in reason and "jtop_rails" not in reason and "EDGE_SDK_JETSON" not in reason


def test_a_runner_for_this_machine_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="--runner names a program for a device behind ssh:// or adb://"):
        open_device("local", runner="executor_runner")
