"""YAML that is broken, hostile or too large, through the door that everybody uses."""

from __future__ import annotations

import time

import pytest

from edge_sdk.errors import TargetError
from edge_sdk.schema import load_target

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("name: [a\nb: c\n", "mine.yaml:2:2: this is not valid YAML:", id="syntax"),
        pytest.param("name: 'x\n", "not valid YAML: found unexpected end of stream", id="open quote"),
        pytest.param("\tname: x\n", "mine.yaml:1:1: this is not valid YAML: found character", id="tab"),
        pytest.param("", "expected a mapping at the top level (keys such as 'name:'), found an empty file", id="empty"),
        pytest.param("- a\n- b\n", "expected a mapping at the top level", id="list"),
        pytest.param("just words\n", "expected a mapping at the top level", id="scalar"),
        pytest.param(BOMB, "mine.yaml:1: YAML anchors and aliases (&a0, *a0) are not read", id="alias bomb"),
        pytest.param("a: &x 1\n", "anchors and aliases", id="anchor"),
        pytest.param("a: *x\n", "anchors and aliases", id="alias without anchor"),
        pytest.param("<<: {a: 1}\n", "the YAML merge key '<<' is not read. Use 'extends: NAME_OR_PATH'", id="merge"),
        pytest.param(
            "name: x\nsoc: !!python/object/apply:os.system ['true']\n",
            "mine.yaml:2: the YAML tag 'tag:yaml.org,2002:python/object/apply:os.system' is not read",
            id="python object",
        ),
        pytest.param("soc: !mine x\n", "the YAML tag '!mine' is not read: a profile is plain data", id="own tag"),
        pytest.param("a: 1\n---\nb: 2\n", "mine.yaml:2: a second YAML document starts here", id="two documents"),
        pytest.param("a: " + "[" * 1000 + "]" * 1000, "nested deeper than 32 levels", id="deep"),
        pytest.param("a: " + "[" * 200_000, "nested deeper than 32 levels", id="deep and open"),
        pytest.param("a: [" + "1," * 30_000 + "]\n", "more than 20000 values", id="many values"),
        pytest.param("a: " + "x" * 300_000, "is larger than 256 KiB", id="large"),
        pytest.param(b"name: \xff\xfe\n", "is not UTF-8 text: byte 0xff at offset 6", id="not UTF-8"),
        pytest.param(b"name: x\nsoc: a\0b\n", "mine.yaml:2: the control character U+0000", id="NUL"),
        pytest.param("? [a, b]\n: c\n", "mine.yaml:1: a sequence stands where a key was expected", id="list as key"),
        pytest.param("a: =\n", "'=' has a special meaning in YAML: put it in quotes", id="equals sign"),
        pytest.param("a: 2024-13-45\n", "'2024-13-45' cannot be read: month must be in 1..12", id="bad date"),
        pytest.param("a: " + "9" * 10_000, "cannot be read: Exceeds the limit", id="long number"),
    ],
)
def test_broken_or_hostile_yaml_is_refused_at_once(write, text, expected):
    path = write(text)
    start = time.monotonic()
    with pytest.raises(TargetError) as caught:
        load_target(path)
    # Far above what it takes, far below what an explosion would.
    assert time.monotonic() - start < 10
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(write, pi):
    assert load_target(write(b"\xef\xbb\xbf" + pi.replace("\n", "\r\n").encode())).name == "my-board"


def test_the_parser_written_in_python_refuses_the_same(write, monkeypatch):
    import yaml

    from edge_sdk.schema import _yaml

    monkeypatch.setattr(_yaml, "_LOADER", yaml.SafeLoader)
    for text, expected in [
        (BOMB, "anchors and aliases"),
        ("a: " + "[" * 1000, "nested deeper"),
        ("a: [b\nc: d\n", ":2:2: this is not valid YAML"),
        ("a: !!python/name:os.system x\n", "python/name:os.system' is not read"),
    ]:
        with pytest.raises(TargetError) as caught:
            load_target(write(text))
        assert expected in str(caught.value)
