"""vCPUs: what KVM_SET_XSAVE took is what the reader gives, from the descriptor and from a file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpstate import cpu as cpus
from fpstate.cpu.host import why_not_x86_64
from fpstate.errors import UsageError
from fpstate.image import encode, register_differences
from fpstate.image import read as read_image
from fpstate.isa import Capabilities
from fpstate.sources.capture import Capture
from fpstate.sources.input import Input
from fpstate.sources.vcpu import capture_vcpu, read, set_xsave, sniff
from guest import enable_everything, vcpu, xsave2_size

ZEN4, SAPPHIRE = (Capabilities(cpus.by_name(name)) for name in ("zen4", "sapphire-rapids"))
XMM5, YMM9 = b"sixteen bytes, 5", b"thirty-two bytes, and not a few!"
VALUES = {"xmm5": XMM5, "ymm9": YMM9, "mxcsr": 0x1FA0.to_bytes(4, "little")}


@pytest.fixture
def host() -> Capabilities:
    if reason := why_not_x86_64():
        pytest.skip(reason)
    return Capabilities(cpus.this_host())


@pytest.fixture
def guest() -> Iterator[int]:
    with vcpu() as made:
        yield made


def blob(caps: Capabilities, features: int, size: int = 4096) -> bytes:
    """Return an image as KVM_GET_XSAVE2 gives it: section 12.4 of the notes on Linux 6.18's answers."""
    data = bytearray(encode(caps, VALUES).ljust(size, b"\0"))
    struct.pack_into("<Q", data, 464, features)
    return bytes(data)


@pytest.mark.host
def test_a_new_vcpu_is_in_its_initial_configuration(guest: int, host: Capabilities) -> None:
    capture = capture_vcpu(guest, name="vCPU 0")
    (thread,) = capture.threads
    assert (capture.source, capture.kind, thread.name, thread.tid) == ("vCPU 0", "vcpu", "vCPU 0", None)
    assert thread.enabled == 1  # XCR0 at RESET
    assert len(thread.image) == xsave2_size()
    assert register_differences(read_image(bytes(thread.image), host), read_image(encode(host, {}), host)) == []


@pytest.mark.host
def test_what_the_vcpu_was_given_is_read(guest: int, host: Capabilities) -> None:
    xcr0 = enable_everything(guest)
    set_xsave(guest, encode(host, VALUES))
    (thread,) = capture_vcpu(guest).threads
    assert thread.enabled == xcr0
    image = read_image(bytes(thread.image), host)
    assert image.register("xmm5") == XMM5
    assert image.register("ymm9") == YMM9
    assert image.mxcsr == 0x1FA0


@pytest.mark.host
def test_the_msrs_are_those_that_this_vcpu_has(guest: int) -> None:
    (thread,) = capture_vcpu(guest).threads
    assert {"xss", "xfd"} & set(thread.values)  # KVM has stored them since 4.20 and 5.17
    assert set(thread.values) <= {
        *("xss", "xfd", "xfd_err", "s_cet", "u_cet", "interrupt_ssp_table", "ssp"),
        *(f"pl{i}_ssp" for i in range(4)),
    }
    assert thread.values.get("xss", 0) == 0  # at RESET


@pytest.mark.host
@pytest.mark.parametrize("what", ["a pipe", "closed", "negative"])
def test_another_descriptor_is_refused(what: str) -> None:
    if why_not_x86_64():
        pytest.skip("needs x86-64 Linux")
    one, other = os.pipe()
    os.close(other)
    try:
        with pytest.raises(UsageError, match=r"no vCPU's|no file descriptor"):
            capture_vcpu({"a pipe": one, "closed": other, "negative": -1}[what])
    finally:
        os.close(one)


@pytest.mark.host
def test_a_vcpu_of_another_process_is_refused(guest: int) -> None:
    script = (
        "import sys; from fpstate.sources.vcpu import capture_vcpu\n"
        "try: capture_vcpu(int(sys.argv[1]))\nexcept Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(guest)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[guest]).stdout
    assert said.startswith(f"UsageError descriptor {guest} is a vCPU that another process made")


@pytest.mark.host
def test_a_real_blob_is_recognised(guest: int, host: Capabilities) -> None:
    set_xsave(guest, encode(host, VALUES))
    data = capture_vcpu(guest).threads[0].image
    assert sniff(Input("it", data))
    assert read_image(bytes(read(Input("blob", data)).threads[0].image), host).register("xmm5") == XMM5


@pytest.mark.parametrize(
    ("caps", "features", "size"),
    [
        (ZEN4, 0x2E7, 4096),
        (ZEN4, 0, 4096),  # Linux before 5.16 leaves the software bytes alone
        (SAPPHIRE, 0x602E7, 11008),
    ],
    ids=["zen4", "an older kernel", "amx"],
)
def test_a_blob_by_its_size_and_header(caps: Capabilities, features: int, size: int) -> None:
    data = memoryview(blob(caps, features, size))
    assert sniff(Input("it", data))
    capture = read(Input("guest.bin", data))
    (thread,) = capture.threads
    assert (capture.kind, thread.offset, thread.enabled) == ("kvm-xsave", 0, features or None)
    assert thread.image.obj is data.obj  # nothing is copied


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (520, 0x80),  # XCOMP_BV
        (575, 1),  # a reserved byte of the header
        (513, 0x08),  # XSTATE_BV has CET_U, which no KVM image has
        (30, 0x40),  # MXCSR_MASK
        (465, 0x08),  # the software bytes name CET_U
        (464, 0xE4),  # and must name x87 and SSE
    ],
)
def test_what_kvm_does_not_write_is_no_blob(at: int, value: int) -> None:
    data = bytearray(blob(ZEN4, 0x2E7))
    data[at] = value
    assert not sniff(Input("it", memoryview(data)))


@pytest.mark.parametrize("data", [b"", bytes(4096), b"text " * 1024, bytes(1 << 17)], ids=lambda data: str(len(data)))
def test_other_files_are_no_blobs(data: bytes) -> None:
    assert not sniff(Input("it", memoryview(data)))


@given(st.binary(max_size=600), st.integers(0, 600))
def test_any_bytes_are_answered(junk: bytes, at: int) -> None:
    data = bytearray(blob(ZEN4, 0x2E7))
    data[at : at + len(junk)] = junk
    if sniff(Input("it", memoryview(data))):
        assert isinstance(read(Input("junk", memoryview(data))), Capture)
