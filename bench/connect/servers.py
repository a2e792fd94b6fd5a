"""What stands in the middle: quice's server, the peers' mailbox, and coturn for their relay."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.connect.lines import Ground
from bench.connect.running import Running
from lab.ground import ENVIRONMENT, LabError
from lab.site import Host
from lab.story import Command

_TURN_PORT = 3479
_REALM = "bench"
_USER, _PASSWORD = "bench", "bench-password"


@contextmanager
def serving(host: Host, *, relay: bool) -> Iterator[Ground]:
    """Start them all; yields what programs are to know of them."""
    with contextlib.ExitStack() as exits:
        ports = ("--port", "0", "--stun-port", "0")
        command = Command(host, "serve", "--host", host.address, *ports, "--relay" if relay else "--no-relay")
        ready = exits.enter_context(command).wait_for("ready")
        mailbox = Running(host, sys.executable, "-m", "bench.connect.mailbox", host.address)
        said = exits.enter_context(mailbox).hear()
        turn = exits.enter_context(_coturn(host)) if relay else None
        yield {"rendezvous": ready["url"], "stun": ready["stun"], "mailbox": said["address"], "turn": turn}


def coturn_unavailable() -> str | None:
    """None where there is a relay for the peers, else what would help."""
    found = shutil.which("turnserver", path=ENVIRONMENT["PATH"])
    return None if found else "a relay for the peers: install the package coturn"


@contextmanager
def _coturn(host: Host) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="quice-bench-") as folder:
        process = host.popen(
            *("turnserver", "-n", "--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"),
            *("--listening-ip", host.address, "--relay-ip", host.address, "--listening-port", str(_TURN_PORT)),
            *("--lt-cred-mech", "--realm", _REALM, "--user", f"{_USER}:{_PASSWORD}"),
            *("--userdb", f"{folder}/users", "--pidfile", f"{folder}/pid"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        # Once it serves, what it says interests nobody, but it would wait for that to be read.
        rest = threading.Thread(target=process.stdout.read, daemon=True)
        try:
            # It says so once its sockets are open.
            if not any("Total General servers" in line for line in process.stdout):
                raise LabError("turnserver ended before it served")
            rest.start()
            yield {"address": f"{host.address}:{_TURN_PORT}", "username": _USER, "password": _PASSWORD}
        finally:
            process.kill()
            process.wait()
            if rest.ident is not None:
                rest.join()
            process.stdout.close()
