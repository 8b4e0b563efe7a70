"""Captions aloud: into a file in the place of a sound card, and the reasons why nothing can be heard."""

from __future__ import annotations

import os
import threading
import wave
from pathlib import Path
from time import monotonic, sleep

import pytest

from edge_sdk.models.captioning.live import speech
from edge_sdk.models.captioning.live.speech import Speaker

ALSA = """\
pcm.!default {{ type file
 slave.pcm "null"
 file "{file}"
 format "wav" }}
pcm.null {{ type null }}
ctl.!default {{ type null }}
"""

pytestmark = pytest.mark.debian("espeak-ng", "alsa-utils")


@pytest.fixture
def speaker():
    """Says texts; gives what it tells, too."""
    pytest.importorskip("pyttsx3", reason="pyttsx3 is not installed: pip install 'edge-sdk[live]'")
    told: list[str] = []
    one = Speaker(told.append)
    yield one, told
    one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "speech" and _lives(thread)]


def _lives(thread: threading.Thread) -> bool:
    thread.join(5)
    return thread.is_alive()


def _until(done) -> None:
    until = monotonic() + 10
    while not done() and monotonic() < until:
        sleep(0.01)


@pytest.fixture
def sound_card(monkeypatch, tmp_path) -> Path:
    """The file that takes what ALSA's default device plays."""
    (tmp_path / "asound.conf").write_text(ALSA.format(file=tmp_path / "heard.wav"))
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    return tmp_path / "heard.wav"


def test_a_caption_is_heard(sound_card, speaker):
    one, told = speaker
    one.say("a cup of tea")
    one.wait()
    with wave.open(str(sound_card)) as file:
        samples = file.readframes(file.getnframes())
        assert file.getnframes() > 0.5 * file.getframerate() and max(samples) > 100
    assert not told and not one.is_mute


def test_another_text_breaks_off_the_one_before_and_leaves_no_file(sound_card, speaker, tmp_path):
    one, told = speaker
    one.say(" ".join(50 * ["a very long caption"]))
    sleep(0.4)
    folder = Path(one._folder.name)
    begin = monotonic()
    one.say("a dog")
    one.wait()
    assert monotonic() - begin < 8 and not told and sound_card.exists()
    one.close()
    assert not folder.exists()


def test_no_sound_device_is_told_once_and_captions_go_on(speaker, monkeypatch):
    if Path("/dev/snd").exists() or "PULSE_SERVER" in os.environ:
        monkeypatch.setenv("ALSA_CONFIG_PATH", "/dev/null")
    one, told = speaker
    for _ in range(2):
        one.say("a dog")
        one.wait()
        _until(lambda: one.is_mute)
    assert len(told) == 1 and told[0].startswith("no sound: ") and told[0].endswith(". Captions go on in text")


def test_a_voice_that_fails_says_why(speaker, monkeypatch):
    monkeypatch.setattr(speech, "_PROGRAM", "raise RuntimeError('no voice today')")
    one, told = speaker
    one.say("a dog")
    _until(lambda: told)
    assert told == [
        "no sound: RuntimeError: no voice today (Linux needs the package espeak-ng). Captions go on in text"
    ]


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        ("edge_sdk.models.captioning.live.speech.importlib.util.find_spec", None, "pyttsx3 is not installed"),
        ("edge_sdk.models.captioning.live.speech.shutil.which", None, "the program aplay is not installed"),
    ],
)
def test_what_is_not_installed_is_told_at_once(monkeypatch, target, value, said):
    monkeypatch.setattr(target, lambda _: value)
    told: list[str] = []
    one = Speaker(told.append)
    one.say("a dog")
    assert one.is_mute and len(told) == 1 and said in told[0]
    one.close()
