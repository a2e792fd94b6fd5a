"""`python -m lab`: look around in a lab, measure NATs, remove what a killed lab left."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from lab import probe
from lab.ground import ENVIRONMENT, LabError, available
from lab.nat import KINDS, named
from lab.network import Lab, clean
from lab.site import Host
from lab.story import StoryError, exit_on_sigterm, serving
from quice.sim.kinds import CLAIMS, Nat


def _shell(nats: list[Nat]) -> int:
    """A lab with a site of each kind and a server, and a shell on the first host."""
    with Lab() as lab:
        server = lab.server()
        hosts = [lab.site(nat).host() for nat in nats]
        with serving(server, server.address) as url:
            print(f"{url} serves; every host has it as QUICE_SERVER. On a host, from another terminal:")
            for nat, host in zip(nats, hosts, strict=True):
                print(f"  {nat.value:25} {host.address:15} {_command(host, url)}")
            print(f"This is a shell on the first, {nats[0].value}; the lab goes when it ends.", flush=True)
            # Here, `quice` and `python` are those that run the lab.
            path = f"{os.path.dirname(sys.executable)}:{ENVIRONMENT['PATH']}"
            environment = {**ENVIRONMENT, "PATH": path, "QUICE_SERVER": url}
            return subprocess.call([*hosts[0].enter, _shell_name()], env=environment)


def _command(host: Host, url: str) -> str:
    return shlex.join([*host.enter, "env", f"QUICE_SERVER={url}", _shell_name()])


def _shell_name() -> str:
    return os.environ.get("SHELL", "/bin/sh")


def _probe(nats: list[Nat]) -> int:
    """Measure NATs, and compare with what they claim."""
    wrong = 0
    for nat in nats:
        measured = probe.verdict_of(nat)
        kept = "kept" if measured.preserves_port else "changed"
        verdict = f"mapping {measured.mapping.value}, filtering {measured.filtering.value}, port {kept}"
        claimed = measured == CLAIMS[nat]
        wrong += not claimed
        print(f"{nat.value:25} {verdict}{'' if claimed else f', NOT AS CLAIMED: {CLAIMS[nat]}'}", flush=True)
    return 1 if wrong else 0


def _clean() -> int:
    """Remove the namespaces that killed labs left."""
    for namespace in clean():
        print(f"removed {namespace}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text, nargs in (
        ("shell", "a shell on the first of these sites, with a server and the others around it", "+"),
        ("probe", "measure NATs of these kinds, by default of all", "*"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("nat", type=named, nargs=nargs, metavar="NAT", help=KINDS)
    commands.add_parser("clean", help="remove the namespaces that a killed lab left")
    arguments = parser.parse_args()
    if (why_not := available()) is not None:
        print(why_not, file=sys.stderr)
        return 1
    try:
        match arguments.command:
            case "shell":
                return _shell(arguments.nat)
            case "probe":
                return _probe(arguments.nat or list(Nat))
            case _:
                return _clean()
    except (LabError, StoryError, probe.ProbeError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    exit_on_sigterm()
    sys.exit(main())
