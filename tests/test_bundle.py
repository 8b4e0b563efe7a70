"""Bundles: written whole, opened only where they are whole, and never trusted."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_sdk.bundle import Bundle
from edge_sdk.errors import BundleError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle whose program is never run here."""
    return tiny.bundle(tmp_path, "onnxruntime", b"a program")


def refusal(path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert caught.value.exit_code == 1
    return str(caught.value)


def change(bundle: Bundle, **changes) -> None:
    """Changes keys of the manifest."""
    path = bundle.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def entry(content: bytes) -> dict:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def test_a_bundle_is_found_whole_and_read(bundle):
    opened = Bundle.open(bundle.path)
    assert opened == bundle
    assert Bundle.open(str(bundle.path)).manifest_sha256 == bundle.manifest_sha256
    assert sorted(opened.manifest.files) == ["reference.npz", "tiny.onnx"]
    assert opened.manifest.size_bytes == len(b"a program")
    assert sorted(opened.reference()) == ["forward/inputs/x", "forward/outputs/y"]
    assert opened.reference()["forward/inputs/x"].shape == (3, 1, 16)


def test_a_changed_byte(bundle):
    path = bundle.path / "tiny.onnx"
    path.write_bytes(b"A program")
    message = refusal(bundle.path)
    assert f"{bundle.path}: tiny.onnx was changed: SHA-256 " in message
    assert message.endswith("Compile the bundle again or copy it anew.")


def test_another_size(bundle):
    (bundle.path / "tiny.onnx").write_bytes(b"a longer program")
    assert "tiny.onnx has 16 bytes, its manifest says 9. It was changed." in refusal(bundle.path)


def test_a_missing_file(bundle):
    (bundle.path / "reference.npz").unlink()
    assert "reference.npz is missing. Compile the bundle again or copy it whole." in refusal(bundle.path)


def test_a_missing_manifest_and_a_missing_bundle(bundle, tmp_path):
    (bundle.path / "manifest.json").unlink()
    assert "manifest.json is missing; this is not a bundle. Compile it again." in refusal(bundle.path)
    assert (
        f"no bundle at {tmp_path / 'none.edge'}: it is missing; expected a folder NAME.edge or a zip of it"
        in refusal(tmp_path / "none.edge")
    )
    (tmp_path / "file.edge").write_bytes(b"text")
    assert "it is a file; expected a folder" in refusal(tmp_path / "file.edge")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "x" * 300 + ".edge"])
def test_a_path_that_no_file_system_takes(path):
    assert "no bundle at" in (message := refusal(path)) or "cannot be read" in message
    assert len(message) < 6000


@pytest.mark.parametrize(
    ("version", "shown"),
    [(2, "2"), (0, "0"), ("1", "'1'"), (None, "None"), ([1] * 1000, "[1, 1, 1")],
)
def test_an_unknown_schema_version(version, shown, bundle):
    change(bundle, schema_version=version)
    message = refusal(bundle.path)
    assert f"manifest.json has schema version {shown}" in message
    assert message.endswith("; this Edge SDK reads 1. Compile the bundle again, or use the Edge SDK that made it.")
    assert len(message) < 500


def test_keys_that_nobody_knows_and_values_that_nobody_means(bundle):
    change(bundle, colour="red", parts=[], created=5, key="short")
    message = refusal(bundle.path)
    assert message.startswith(f"{bundle.path / 'manifest.json'} is not valid:\n")
    for fault in ("colour: Extra inputs are not permitted", "created: ", "key: "):
        assert f"\n  {fault}" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b"{", "is not JSON", id="cut off"),
        pytest.param(b"\xff\xfe{}", "is not JSON", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "is not JSON", id="deep"),
        pytest.param(b'{"schema_version": ' + b"9" * 10_000 + b"}", "is not JSON", id="a long number"),
        pytest.param(b"[]", "has schema version None", id="a list"),
        pytest.param(b"3", "has schema version None", id="a number"),
        pytest.param(b'{"schema_version": NaN}', "has schema version nan", id="no number"),
        pytest.param(b" " * (17 * 2**20), "is 17825792 bytes; at most 16777216 are read", id="large"),
    ],
)
def test_a_manifest_that_is_none(content, message, bundle):
    (bundle.path / "manifest.json").write_bytes(content)
    assert message in refusal(bundle.path)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "..",
        "",
        "C:\\secret",
        "a\\b",
        "file:x",
        "a\0b",
        "\ud800",
        "a\nb",
        "\u202ex",
    ],
)
def test_a_path_that_climbs_out_or_is_none(name, bundle, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    files = json.loads((bundle.path / "manifest.json").read_text())["files"]
    change(bundle, files={**files, name: entry(b"secret")})
    message = refusal(bundle.path)
    assert "which is no path within the bundle. Do not use this bundle." in message
    assert message.isprintable()


@pytest.mark.parametrize("where", ["reference", "program"])
def test_a_path_that_climbs_out_where_it_is_used(where, bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    if where == "reference":
        change(bundle, reference="../../etc/passwd")
    else:
        manifest["parts"][0]["program"] = "../x.onnx"
        change(bundle, parts=manifest["parts"])
    assert "which is no path within the bundle" in refusal(bundle.path)


def test_a_program_without_a_hash(bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    del manifest["files"]["tiny.onnx"]
    change(bundle, files=manifest["files"])
    assert "uses files that it gives no hash for: tiny.onnx." in refusal(bundle.path)


def test_a_name_too_long_for_a_file_system(bundle):
    files = json.loads((bundle.path / "manifest.json").read_text())["files"]
    change(bundle, files={**files, "x" * 5000: entry(b"")})
    assert "File name too long" in refusal(bundle.path)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "."])
def test_a_link_that_leads_out_or_to_no_file(target, bundle, tmp_path):
    (tmp_path / "outside").write_bytes(b"a program")
    (bundle.path / "tiny.onnx").unlink()
    (bundle.path / "tiny.onnx").symlink_to(target)
    assert "tiny.onnx leads out of the bundle or is no file. Do not use this bundle." in refusal(bundle.path)


def test_links_that_lead_nowhere_or_in_circles(bundle):
    (bundle.path / "tiny.onnx").unlink()
    (bundle.path / "tiny.onnx").symlink_to("nothing")
    assert "tiny.onnx is missing" in refusal(bundle.path)
    (bundle.path / "tiny.onnx").unlink()
    (bundle.path / "tiny.onnx").symlink_to("tiny.onnx")
    assert "tiny.onnx" in refusal(bundle.path)


def test_a_manifest_that_is_a_link_and_a_program_that_is_a_pipe(bundle, tmp_path):
    (bundle.path / "manifest.json").rename(tmp_path / "manifest.json")
    (bundle.path / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert "manifest.json is missing" in refusal(bundle.path)
    (bundle.path / "manifest.json").unlink()
    (tmp_path / "manifest.json").rename(bundle.path / "manifest.json")
    (bundle.path / "tiny.onnx").unlink()
    os.mkfifo(bundle.path / "tiny.onnx")
    assert "leads out of the bundle or is no file" in refusal(bundle.path)


# Zipped


def archive(tmp_path: Path, members: dict[str, bytes], name="tiny.zip", **options) -> Path:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members.items():
            file.writestr(member, content, **options)
    return path


def contents(bundle: Bundle, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{path.name}": path.read_bytes() for path in bundle.path.iterdir()}


def left(folder: Path) -> list[str]:
    """What lies beside the archive: hidden folders are those that were unpacked."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("prefix", ["", "tiny.edge/"])
def test_a_zipped_bundle_is_unpacked_once(prefix, bundle, tmp_path):
    path = archive(tmp_path, contents(bundle, prefix))
    opened = Bundle.open(path)
    assert opened.manifest == bundle.manifest and opened.manifest_sha256 == bundle.manifest_sha256
    assert sorted(opened.reference()) == ["forward/inputs/x", "forward/outputs/y"]
    before = opened.path.stat().st_mtime_ns
    assert Bundle.open(path) == opened and opened.path.stat().st_mtime_ns == before
    (opened.path / "tiny.onnx").write_bytes(b"A program")
    assert "was changed" in refusal(path)


@pytest.mark.parametrize(
    "name",
    ["../evil", "tiny.edge/../../evil", "/evil", "a\\..\\evil", "C:evil"],
    ids=["up", "inside", "root", "back", "drive"],
)
def test_an_archive_that_climbs_out(name, bundle, tmp_path):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    path = archive(folder, {**contents(bundle), name: b"evil"})
    assert "which is no path within the bundle" in refusal(path)
    assert left(folder) == [] and not list(tmp_path.rglob("*evil*"))


def test_an_archive_whose_members_all_climb_out(bundle, tmp_path):
    path = archive(tmp_path, contents(bundle, "../"))
    assert "which is no path within the bundle" in refusal(path)


def test_an_archive_with_a_link(bundle, tmp_path):
    path = archive(tmp_path, contents(bundle))
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert "link is a symbolic link. Do not use this bundle." in refusal(path)
    assert left(tmp_path) == []


def test_an_archive_that_declares_more_than_a_disk_holds(bundle, tmp_path):
    members = {f"m{index}": b"" for index in range(5)}
    huge = archive(tmp_path, {**contents(bundle), **members}, "huge.zip")
    data = bytearray(huge.read_bytes())
    place = 0
    while (place := data.find(b"PK\x01\x02", place)) >= 0:
        data[place + 24 : place + 28] = (0xFFFFFFF0).to_bytes(4, "little")
        place += 4
    huge.write_bytes(data)
    assert "unpacks to more than 1000 files or 17179869184 bytes." in refusal(huge)
    many = archive(tmp_path, {f"m{index}": b"" for index in range(1001)}, "many.zip")
    assert "unpacks to more than 1000 files" in refusal(many)
    assert left(tmp_path) == []


def test_an_archive_that_is_damaged(bundle, tmp_path):
    content = archive(tmp_path, contents(bundle)).read_bytes()
    for place in range(30, len(content) - 22, 97):
        path = tmp_path / f"damaged-{place}.zip"
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert Bundle.open(path).manifest == bundle.manifest
        except BundleError as error:
            assert "\n" not in str(error) or "is not valid" in str(error)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[: len(content) // 2])
    assert "it is a file; expected a folder" in refusal(cut)


def test_an_archive_with_two_files_of_one_name(bundle, tmp_path):
    path = archive(tmp_path, {**contents(bundle), "a": b"", "a/b": b""})
    assert "holds two files of one name. Do not use this bundle." in refusal(path)
    assert left(tmp_path) == []


def test_an_archive_that_holds_no_bundle(tmp_path):
    assert "manifest.json is missing; this is not a bundle" in refusal(archive(tmp_path, {"x": b"1"}))
    empty = archive(tmp_path, {}, "empty.zip")
    assert "manifest.json is missing" in refusal(empty)


# The reference


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no arrays", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", id="one array"
        ),
        pytest.param(b"PK\x05\x06" + b"\0" * 18, id="no array"),
    ],
)
def test_a_reference_that_cannot_be_read(content, bundle):
    opened = _with_reference(bundle, content)
    if content.startswith(b"PK\x05"):
        assert opened.reference() == {}
        return
    with pytest.raises(BundleError, match="reference.npz cannot be read: "):
        opened.reference()


def _with_reference(bundle: Bundle, content: bytes) -> Bundle:
    """The bundle with another reference, its hash put right: what a hostile author would do."""
    (bundle.path / "reference.npz").write_bytes(content)
    files = json.loads((bundle.path / "manifest.json").read_text())["files"]
    change(bundle, files={**files, "reference.npz": entry(content)})
    return Bundle.open(bundle.path)


class Evil:
    """Unpickling it leaves a mark."""

    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_a_reference_with_pickled_objects_is_not_unpickled(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "evil.npz", **{"forward/inputs/x": np.array([Evil()], dtype=object)})
    opened = _with_reference(bundle, (tmp_path / "evil.npz").read_bytes())
    with pytest.raises(BundleError, match="reference.npz cannot be read: Object arrays cannot be loaded"):
        opened.reference()
    assert not (tmp_path / "evil").exists()


def test_a_reference_that_claims_a_huge_array(bundle, tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    header += b" " * (117 - len(header)) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    content = archive(tmp_path, {"forward/inputs/x.npy": array}).read_bytes()
    with pytest.raises(BundleError, match="reference.npz cannot be read: "):
        _with_reference(bundle, content).reference()
