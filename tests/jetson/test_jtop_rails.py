"""The sensor on top of jtop, with a stand-in for jetson-stats that answers in its form."""

from __future__ import annotations

import pytest

# The form is that of jetson-stats 4 to 7.2: a rail that is the total is taken out of the others.
JTOP = """
class jtop:
    def __init__(self, interval):
        self.interval = interval

    def start(self):
        if {refuses}:
            raise RuntimeError("The jtop.service is not active. Please run: sudo systemctl restart jtop.service")

    @property
    def power(self):
        return {power}
"""


def rail(power):
    return {"volt": 5000, "curr": power // 5, "power": power, "avg": power}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    def install(power, refuses=False):
        (tmp_path / "jtop.py").write_text(JTOP.format(power=repr(power), refuses=refuses))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_the_rail_that_feeds_all(stand_in, jetson):
    stand_in({"rail": {"VDD_SOC": rail(1500)}, "tot": {**rail(5500), "name": "VDD_IN"}})
    sensor = jetson("jtop_rails").JtopRails()
    assert (sensor.name, sensor.unit, sensor.rails, sensor.assumed) == ("jtop", "mW", ["VDD_IN"], None)
    assert sensor.read() == 5500


def test_jtops_own_sum_is_not_taken(stand_in, jetson):
    rails = {"VDD_GPU_SOC": rail(4000), "VDD_CPU_CV": rail(1000), "VIN_SYS_5V0": rail(4500)}
    rails["VDDQ_VDD2_1V8AO"] = rail(1100)
    stand_in({"rail": rails, "tot": {"power": 10_600, "avg": 10_600}})
    sensor = jetson("jtop_rails").JtopRails()
    assert sensor.read() == 9500 and "VDDQ_VDD2_1V8AO" not in sensor.rails


def test_a_service_that_does_not_answer(stand_in, jetson):
    stand_in({}, refuses=True)
    with pytest.raises(OSError, match="jtop's service does not answer: The jtop.service is not active"):
        jetson("jtop_rails").JtopRails()


def test_no_rails(stand_in, jetson):
    stand_in({"rail": {}, "tot": {}})
    with pytest.raises(OSError, match="jtop shows no power rails"):
        jetson("jtop_rails").JtopRails()


def test_without_jetson_stats(jetson):
    with pytest.raises(OSError, match="jetson-stats is not installed: No module named 'jtop'"):
        jetson("jtop_rails").JtopRails()
