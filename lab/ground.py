"""Where the lab's namespaces are made: in the system's by root, in a user namespace of its own by anybody else."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from types import TracebackType

_TOOLS = {"ip": "iproute2", "nft": "nftables", "sysctl": "procps"}
_USER_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux"}

ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
"""For programs that the lab starts: the tools are where a user's PATH need not lead."""

# Named network namespaces are files there, and a user can't write to the system's. `cat` ends with its input,
# which ends with the lab, however that ends; the namespaces go with the last process in them.
_HOLD = "mount -t tmpfs tmpfs /run && mkdir -p /var/run/netns && echo ready && exec cat"


class LabError(RuntimeError):
    """The lab could not be built; the text has what the tool said."""


class Ground:
    """A place with the right to make network namespaces; a context manager.

    Entering it raises `LabError` where there is no such place.
    """

    def __init__(self) -> None:
        self.enter: tuple[str, ...] = ()
        """What to put before a command so that it runs here."""
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Ground:
        if os.geteuid() == 0:
            return self
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", _HOLD]
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != "ready":
            said = self._holder.communicate()[1].strip()
            self._holder = None
            raise LabError(f"no root, and no user namespaces either: {said}")
        self.enter = (
            *("nsenter", "--target", str(self._holder.pid), "--user", "--net", "--mount"),
            *("--preserve-credentials", "--wd=" + os.getcwd()),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command here, whatever comes of it."""
        return subprocess.run([*self.enter, *command], input=text, capture_output=True, text=True, env=ENVIRONMENT)

    def check(self, *command: str, text: str = "") -> str:
        """Run a command here and return its output; raises `LabError` with what it said when it fails."""
        result = self.run(*command, text=text)
        if result.returncode:
            raise LabError(f"{' '.join(command)}: {result.stderr.strip() or f'exit status {result.returncode}'}")
        return result.stdout


@functools.cache
def available() -> str | None:
    """None where a lab can be built, else why not and what would help."""
    tools = _TOOLS if os.geteuid() == 0 else _TOOLS | _USER_TOOLS
    missing = sorted(
        {package for tool, package in tools.items() if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None}
    )
    if missing:
        return f"NAT lab: install the packages {', '.join(missing)}"
    name = f"quice-{os.getpid()}-probe"
    try:
        with Ground() as ground:
            ground.check("ip", "netns", "add", name)
            try:
                ground.check("ip", "netns", "exec", name, "nft", "list", "ruleset")
            finally:
                ground.check("ip", "netns", "delete", name)
    except LabError as error:
        return f"NAT lab: needs root or user namespaces, and a kernel with nftables ({error})"
    return None
