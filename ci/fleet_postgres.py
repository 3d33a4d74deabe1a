"""Hold the trial of `ci/fleet_trial.py` on a PostgreSQL server started for it, and ended after it.

    python ci/fleet_postgres.py [--bin FOLDER]      Debian: apt-get install postgresql

The server lives in a temporary folder and listens on a free port of 127.0.0.1. It refuses to run as
root; root therefore starts it as the user `postgres`, which the package makes.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fleet_trial import add_plan, hold_trial


class NoServerError(Exception):
    """PostgreSQL's programs are not here, or do not start."""


def find_programs(folder: str | None) -> Path:
    """Folder of `initdb` and `pg_ctl`: the one given, that on the PATH, or Debian's newest."""
    if folder is not None:
        found = [Path(folder)]
    elif on_path := shutil.which("initdb"):
        found = [Path(on_path).parent]
    else:
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        found = sorted(debian, key=lambda path: float(path.parent.name))
    if not found or not (found[-1] / "initdb").exists():
        raise NoServerError("no PostgreSQL here: apt-get install postgresql, or name --bin FOLDER")
    return found[-1]


def run_as_owner(words: Sequence[str | Path], cwd: Path) -> None:
    """Run a program of the server as somebody who is not root."""
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    command = [*(user if os.geteuid() == 0 else ()), *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise NoServerError(f"{' '.join(command)}: {done.stdout.decode(errors='replace')}")


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """Start a server; yields the URL of its database."""
    with tempfile.TemporaryDirectory(prefix="fleet-pg-") as name:
        home = Path(name)
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        password, port = secrets.token_urlsafe(12), free_port()
        secret = home / "password"
        secret.write_text(password)
        secret.chmod(0o644)  # in a folder that is its owner's alone
        data, log = home / "data", home / "log"
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home}"
        initdb = [programs / "initdb", "-D", data, "-U", "tuner", "-A", "scram-sha-256"]
        run_as_owner([*initdb, "--pwfile", secret, "--no-sync", "-E", "UTF8"], home)
        control = [programs / "pg_ctl", "-D", data, "-w"]
        run_as_owner([*control, "-l", log, "-o", settings, "start"], home)
        try:
            yield f"postgresql://tuner:{password}@127.0.0.1:{port}/postgres"
        finally:
            run_as_owner([*control, "-m", "immediate", "stop"], home)


def main() -> int:
    """Read the command line, start the server, hold the trial."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bin", metavar="FOLDER", help="PostgreSQL's programs")
    add_plan(parser)
    options = parser.parse_args()
    try:
        with server(find_programs(options.bin)) as url:
            return hold_trial(options, url)
    except NoServerError as error:
        print(f"fleet_postgres: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
