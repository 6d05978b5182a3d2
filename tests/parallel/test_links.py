"""What the driver tells of several cards, as it was seen on machines that are not here."""

import pytest
from infinitetalk.pipeline.commands import ways
from infinitetalk.pipeline.commands.doctor import FINE, MISSING, Finding
from infinitetalk.pipeline.parallel import links

NVLINK = """
\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV18\tPXB\t0-47\t0
GPU1\tNV18\t X \tNODE\t0-47\t0
NIC0\tPXB\tNODE\t X \t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes
"""
PCIE = """
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity
GPU0\t X \tNV4\tPHB\tSYS\t0-15
GPU1\tNV4\t X \tPHB\tSYS\t0-15
GPU2\tPHB\tPHB\t X \tSYS\t0-15
GPU3\tSYS\tSYS\tSYS\t X \t0-15
"""


@pytest.mark.parametrize(
    ("table", "way"), [(NVLINK, "NVLink"), (PCIE, "PCIe between two CPUs"), ("", None), ("No devices were found", None)]
)
def test_the_worst_way_between_two_cards_counts(table, way):
    assert links.slowest_way(table) == way


def test_the_doctor_tells_what_is_between_cards(monkeypatch):
    monkeypatch.setattr(links, "topology", lambda: NVLINK)
    monkeypatch.setattr(links, "nccl", lambda: "2.27.3")
    monkeypatch.setattr(links, "reaches", lambda count: count == 2)
    told = "2 for --gpus, NVLink; they read each other's memory; NCCL 2.27.3"
    assert ways.between(2) == Finding(FINE, "several cards", told)
    monkeypatch.setattr(links, "topology", lambda: "")
    assert "the driver does not say" in ways.between(4).found and "by way of the host" in ways.between(4).found
    monkeypatch.setattr(links, "nccl", lambda: None)
    assert ways.between(2).mark == MISSING
