from __future__ import annotations

import pytest

from edge_sdk.reporting.text import clean, figure, plural, scaled


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]words[/bold]", "plain [bold]words[/bold]"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("\udce9", "\\udce9"),
        ("고양이 café 🐈", "고양이 café 🐈"),
    ],
)
def test_control_characters_become_visible(text, shown):
    assert clean(text) == shown


def test_line_breaks_may_be_kept():
    assert clean("a\nb\x07", keep="\n") == "a\nb\\x07"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (5.36e-7, "5.36e-07"),
        (0.0012345, "0.00123"),
        (1.2345, "1.23"),
        (9.999, "10.0"),
        (12.345, "12.3"),
        (1234.5, "1,230"),
        (123456, "123,000"),
        (-2.5, "-2.50"),
    ],
)
def test_three_significant_digits(value, shown):
    assert figure(value) == shown


def test_more_digits():
    assert figure(1.23456, 5) == "1.2346"


def test_sizes_and_counts():
    assert scaled(4_953_632, "B") == "4.95 MB"
    assert scaled(4_544, "B") == "4.54 kB"
    assert scaled(12, "B") == "12 B"
    assert scaled(1.82e9, "MAC") == "1.82 GMAC"
    assert scaled(3e12, "MAC") == "3.00 TMAC"
    assert plural(1, "piece") == "1 piece"
    assert plural(1234, "sample") == "1,234 samples"
