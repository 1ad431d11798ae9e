"""Devices: chosen in a fixed order with the reason said; one that was named and is not there is an error."""

import sys
from contextlib import nullcontext

import psutil
import pytest
import torch

from toolkit import devices
from toolkit.devices import Backend, choose
from toolkit.errors import DeviceError


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch):
    """Makes only the named devices present."""

    def set_present(*names: str) -> None:
        for name in devices.BACKENDS:
            reason = None if name in names else f"{name} is made absent"
            fake = Backend(name, "cpu", lambda reason=reason: reason, lambda: None, lambda: 0, lambda: False)
            monkeypatch.setitem(devices.BACKENDS, name, fake)

    return set_present


@pytest.mark.parametrize(
    ("there", "chosen", "reason"),
    [
        (("mps", "cuda", "cpu"), "mps", "mps is the first of mps, cuda, cpu that is here"),
        (("cuda", "cpu"), "cuda", "no mps: mps is made absent; cuda is the first of mps, cuda, cpu that is here"),
        (("cpu",), "cpu", "no mps: mps is made absent; no cuda: cuda is made absent; cpu is the first of mps, cuda, cpu that is here"),
    ],
)
def test_auto_takes_mps_then_cuda_then_cpu_and_says_why(present, there, chosen, reason):
    present(*there)
    backend, why = choose("auto")
    assert (backend.id, why) == (chosen, reason)
    assert choose() == (backend, why)


@pytest.mark.parametrize("name", ["mps", "cuda", "cpu"])
def test_a_named_device_that_is_there_is_taken(present, name):
    present("mps", "cuda", "cpu")
    backend, why = choose(name)
    assert (backend.id, why) == (name, "asked for by name")


@pytest.mark.parametrize("name", ["mps", "cuda"])
def test_a_named_device_that_is_not_there_is_an_error_with_the_reason(present, name):
    present("cpu")
    with pytest.raises(DeviceError, match=f"--device {name} was asked for, but {name} is made absent. Use --device auto"):
        choose(name)


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:0", ""])
def test_an_unknown_device_lists_those_there_are(name):
    with pytest.raises(DeviceError, match=f"there is no device '{name}'; choose one of auto, mps, cuda, cpu"):
        choose(name)


def test_the_cpu_is_always_there():
    assert devices.BACKENDS["cpu"].why_not() is None


def test_mps_is_absent_with_the_build_or_the_machine_as_reason(monkeypatch: pytest.MonkeyPatch):
    why_not = devices.BACKENDS["mps"].why_not
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    assert f"torch ({torch.__version__}) is built without MPS" in why_not()
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "no Metal device" in why_not()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert why_not() is None


def test_cuda_is_absent_with_the_build_or_the_machine_as_reason(monkeypatch: pytest.MonkeyPatch):
    why_not = devices.BACKENDS["cuda"].why_not
    monkeypatch.setattr(torch.version, "cuda", None)
    assert f"torch ({torch.__version__}) is built without CUDA" in why_not()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device or driver" in why_not()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_not() is None


@pytest.mark.parametrize(
    ("device", "module", "synchronise", "memory"),
    [("mps", torch.mps, "synchronize", "driver_allocated_memory"), ("cuda", torch.cuda, "synchronize", "max_memory_allocated")],
)
def test_an_accelerator_is_waited_for_and_its_memory_asked_of_torch(monkeypatch, device, module, synchronise, memory):
    calls = []
    monkeypatch.setattr(module, synchronise, lambda: calls.append("waited"))
    monkeypatch.setattr(module, memory, lambda: 123)
    devices.BACKENDS[device].synchronise()
    assert calls == ["waited"]
    assert devices.BACKENDS[device].memory_bytes() == 123


def test_peak_memory_is_in_bytes_and_at_least_what_is_held_now():
    held = psutil.Process().memory_info().rss
    assert 0.95 * held <= devices.peak_memory_bytes() < psutil.virtual_memory().total


def test_peak_memory_is_kib_on_linux_and_bytes_on_macos(monkeypatch: pytest.MonkeyPatch):
    class Usage:
        ru_maxrss = 2048

    monkeypatch.setattr(devices.resource, "getrusage", lambda who: Usage)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert devices.peak_memory_bytes() == 2048
    monkeypatch.setattr(sys, "platform", "linux")
    assert devices.peak_memory_bytes() == 2048 * 1024


def test_autocast_computes_in_bf16_when_it_is_enabled_and_does_nothing_otherwise():
    cpu, ones = devices.BACKENDS["cpu"], torch.ones(2, 2)
    with cpu.autocast(True):
        assert (ones @ ones).dtype == torch.bfloat16
    assert isinstance(cpu.autocast(False), nullcontext)
    with cpu.autocast(False):
        assert (ones @ ones).dtype == torch.float32


def test_bf16_is_only_said_of_hardware_that_multiplies_it(monkeypatch: pytest.MonkeyPatch):
    for amx in (False, True):
        for avx in (False, True):
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
            assert devices.BACKENDS["cpu"].has_bf16() is (amx or avx)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert devices.BACKENDS["cuda"].has_bf16() is False
    assert devices.BACKENDS["mps"].has_bf16() is False
