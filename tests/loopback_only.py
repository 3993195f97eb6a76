"""Shows that a program needs no network: it runs with a socket that connects to this machine alone.

What it tried besides stands in a file, because libraries swallow the errors of such tries.
"""

import os
from pathlib import Path

_SITE = """\
import os, socket

_connect = socket.socket.connect


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["TRIED_ADDRESSES"], "a") as file:
            print(address, file=file)
        raise OSError("only this machine can be reached here")
    return _connect(self, address)


_find = socket.getaddrinfo


def getaddrinfo(host, *given, **more):
    if host not in (None, "127.0.0.1", "::1", "localhost", "0.0.0.0", b"127.0.0.1", b"localhost"):
        with open(os.environ["TRIED_ADDRESSES"], "a") as file:
            print(host, file=file)
        raise socket.gaierror("only this machine can be reached here")
    return _find(host, *given, **more)


socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment of such a program; `tried` reads what it tried."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE)
    paths = [str(folder), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TRIED_ADDRESSES": str(folder / "tried.txt")}


def tried(folder: Path) -> str:
    """Returns the addresses elsewhere that the program tried to reach."""
    path = folder / "tried.txt"
    return path.read_text() if path.exists() else ""
