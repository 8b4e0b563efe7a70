"""Fetching COCO from a real server on this machine, with archives in COCO's own layout."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_coco

from edge_sdk.errors import EdgeSdkError
from edge_sdk.models.photo_tagging import _download
from edge_sdk.models.photo_tagging._download import Archive, download
from edge_sdk.models.photo_tagging.coco import read_index


class Server(http.server.ThreadingHTTPServer):
    """Serves files by path, knows ranges, and can drop the line after some bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: list[tuple[str, str | None]] = []
        self.drop_after: int | None = None
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[self.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest if self.server.drop_after is None else rest[: self.server.drop_after])
        self.close_connection = True

    def log_message(self, format: str, *args) -> None:
        del format, args


def packed(folder: Path, *extra: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
        for name, content in extra:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tiny_coco.write_coco(tmp_path_factory.mktemp("source") / "coco", 6, 5)
    return {
        "/annotations/annotations_trainval2017.zip": packed(
            root / "annotations", ("annotations/captions_val2017.json", b"{}"), ("../outside.json", b"{}")
        ),
        "/zips/val2017.zip": packed(root / "val2017", ("val2017/../../escaped.jpg", b"x")),
        "/zips/train2017.zip": packed(root / "train2017"),
    }


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_download, "_PAUSE_S", 0.0)
    server = Server(dict(files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def archives(files: dict[str, bytes]) -> list[Archive]:
    gives = ("annotations", "val2017", "train2017")
    return [
        Archive(path[1:], len(content), hashlib.md5(content).hexdigest(), folder)
        for (path, content), folder in zip(files.items(), gives, strict=True)
    ]


def fetch(server: Server, files: dict[str, bytes], folder: Path, **options) -> list[str]:
    said: list[str] = []
    download(folder, say=said.append, base_url=server.url, archives=archives(files), **options)
    return said


def test_what_comes_can_be_read_and_nothing_else_is_left(server: Server, files, tmp_path: Path):
    said = fetch(server, files, tmp_path / "coco")
    for split, count in (("train", 6), ("val", 5)):
        assert len(read_index(tmp_path / "coco", split).files) == count
    names = {path.name for path in (tmp_path / "coco").iterdir()}
    assert names == {"annotations", "val2017", "train2017"}
    assert {path.name for path in tmp_path.iterdir()} == {"coco"}
    annotations = {path.name for path in (tmp_path / "coco" / "annotations").iterdir()}
    assert annotations == {"instances_train2017.json", "instances_val2017.json"}
    assert any(line.startswith("val2017.zip: ") and "MB/s" in line for line in said)
    assert said[-1] == f"{tmp_path / 'coco'} is complete"


def test_what_is_there_is_not_fetched_again(server: Server, files, tmp_path: Path):
    fetch(server, files, tmp_path / "coco")
    server.asked.clear()
    assert fetch(server, files, tmp_path / "coco") == [f"{tmp_path / 'coco'} has it all already"]
    assert server.asked == []


def test_a_line_that_drops_is_taken_up_where_it_stopped(server: Server, files, tmp_path: Path):
    server.drop_after = max(map(len, files.values())) // 3 + 1
    fetch(server, files, tmp_path / "coco")
    assert any(wanted == f"bytes={server.drop_after}-" for _, wanted in server.asked)
    assert len(read_index(tmp_path / "coco", "train").files) == 6


def test_what_came_is_kept_for_the_next_command(server: Server, files, tmp_path: Path):
    server.drop_after = 100
    with pytest.raises(EdgeSdkError, match=r"cannot be fetched: .* 500 bytes are kept in .*\.part: run the same"):
        fetch(server, files, tmp_path / "coco")
    server.drop_after = None
    server.asked.clear()
    fetch(server, files, tmp_path / "coco")
    assert server.asked[0] == ("/annotations/annotations_trainval2017.zip", "bytes=500-")


def test_a_server_that_knows_no_ranges_sends_it_all_again(server: Server, files, tmp_path: Path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "annotations_trainval2017.zip.part").write_bytes(b"x" * 50)
    server.ranges = False
    fetch(server, files, tmp_path / "coco")
    assert len(read_index(tmp_path / "coco", "val").files) == 5


def test_a_damaged_archive_is_removed(server: Server, files, tmp_path: Path):
    content = files["/zips/val2017.zip"]
    server.files["/zips/val2017.zip"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(EdgeSdkError, match=r"val2017.zip is damaged: its MD5 is .* It was removed"):
        fetch(server, files, tmp_path / "coco")
    assert {path.name for path in (tmp_path / "coco").iterdir()} == {"annotations"}


def test_an_archive_of_another_size_is_refused(server: Server, files, tmp_path: Path):
    server.files["/zips/val2017.zip"] = files["/zips/val2017.zip"] + b"more"
    with pytest.raises(EdgeSdkError, match=r"gave \d+ bytes instead of \d+"):
        fetch(server, files, tmp_path / "coco")


def test_a_missing_archive(server: Server, files, tmp_path: Path):
    del server.files["/annotations/annotations_trainval2017.zip"]
    with pytest.raises(EdgeSdkError, match="answers 404 Not Found: set EDGE_SDK_COCO_URL"):
        fetch(server, files, tmp_path / "coco")


def test_no_server(tmp_path: Path, files, server: Server):
    with pytest.raises(EdgeSdkError, match="cannot be fetched: .*Connection refused.* 0 bytes are kept"):
        download(tmp_path / "coco", base_url="http://127.0.0.1:9", archives=archives(files))


def test_too_small_a_disk_is_refused_before_anything_is_fetched(server: Server, files, tmp_path: Path):
    huge = [Archive("zips/huge.zip", 10**16, "", "train2017")]
    with pytest.raises(EdgeSdkError, match=r"GB free, and the data needs 20000000\.0 GB while it is unpacked"):
        download(tmp_path / "coco", base_url=server.url, archives=huge)
    assert server.asked == []


def test_the_real_archives_are_named_with_their_sizes():
    total = sum(one.size_bytes for one in (_download.ANNOTATIONS, _download.VAL, _download.TRAIN))
    assert round(total / 1e9, 1) == 20.4
    assert _download.TRAIN.name == "train2017.zip"
