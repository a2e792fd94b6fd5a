"""The lab comes and goes: with root or without, and whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lab.ground import Ground, LabError, available
from lab.network import Lab, clean, ending
from quice.sim.kinds import Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
# A lab of some process that waits in it, and has a program running there.
WAIT = """
import signal
from lab.link import Conditions
from lab.network import Lab
from quice.sim.kinds import Nat
from lab.story import exit_on_sigterm
exit_on_sigterm()
with Lab() as lab:
    host = lab.site(Nat.PORT_RESTRICTED, conditions=Conditions(delay=0.001)).host()
    program = host.popen("sleep", "60")
    print(host.namespace, program.pid, flush=True)
    signal.pause()
"""
# The kernel takes milliseconds to close each packet socket of a program that was killed.
SLOW = """
import signal, socket
sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) for _ in range(100)]
print("ready", flush=True)
signal.pause()
"""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _becomes_user() -> bool:
    return os.geteuid() == 0 and _run(*AS_USER, "unshare", "--user", "true").returncode == 0


def _namespaces_of(pid: int) -> list[str]:
    with Ground() as ground:
        listed = ground.check("ip", "netns", "list").split()
    return [name for name in listed if name.startswith(f"quice-{pid}-")]


def test_a_lab_leaves_no_namespace_and_no_program() -> None:
    with Lab() as lab:
        program = lab.site(Nat.PORT_RESTRICTED).host().popen(sys.executable, "-c", SLOW, stdout=subprocess.PIPE)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        if os.geteuid() == 0:
            assert len(_namespaces_of(os.getpid())) == 3
    assert not _runs(program.pid)
    program.communicate()
    assert program.returncode == -signal.SIGKILL
    assert _namespaces_of(os.getpid()) == []


def test_a_tool_that_fails_is_quoted() -> None:
    with Lab() as lab, pytest.raises(LabError, match=r"nft -f no-such-file: .*No such file"):
        lab.server().run("nft", "-f", "no-such-file")


def test_a_host_that_cannot_be_built_leaves_nothing() -> None:
    def half() -> None:
        with Lab() as lab:
            lab.server()
            raise LabError("in the middle")

    with pytest.raises(LabError, match="in the middle"):
        half()
    assert _namespaces_of(os.getpid()) == []


@pytest.mark.skipif(not _becomes_user(), reason="NAT lab: user namespaces can't be tried by root here")
def test_a_user_without_rights_has_the_same_nats() -> None:
    result = _run(*AS_USER, sys.executable, "-m", "lab", "probe", "address_restricted", "symmetric")
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "address_restricted        mapping endpoint_independent, filtering address_dependent, port kept",
        "symmetric                 mapping address_and_port_dependent, filtering address_and_port_dependent, "
        "port changed",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="NAT lab: without root nothing outlives a lab")
def test_sigterm_removes_a_lab_and_a_kill_leaves_it_to_clean() -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            namespace, program = process.stdout.readline().split()
            assert namespace not in clean()
            (forwarder,) = _run("ip", "netns", "pids", f"quice-{process.pid}-0-halfway").stdout.split()
            with ending(int(forwarder)):
                process.send_signal(number)
                process.wait(10)
            left = _namespaces_of(process.pid)
            assert (namespace in left) == (number == signal.SIGKILL)
            assert (namespace in clean()) == (number == signal.SIGKILL)
            assert _namespaces_of(process.pid) == []
            assert not _runs(int(program))


def _runs(pid: int) -> bool:
    """Whether a program still runs; one that has ended waits for its parent, or is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
