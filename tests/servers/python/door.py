"""A server on a UNIX socket and a port: answers each line with its number and what it sees of its client.

It knows nothing of replication; the end-to-end tests wrap it.

usage: door.py PORT PATH
"""

import os
import socket
import struct
import sys
import threading

TURN = threading.Lock()
numbers = 0


def shown(stream):
    """What a server can ask of a connection."""
    pid, user, group = struct.unpack(
        "3I", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    user = "own" if user == os.geteuid() else user
    domain = stream.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return f"{stream.getsockname()!r} {stream.getpeername()!r} {domain} user {user}"


def talk(path):
    """Asks itself."""
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(path)
        told = f"{own.getsockname()!r} {own.getpeername()!r}"
        own.sendall(b"hello\n")
        own.shutdown(socket.SHUT_WR)
        return told + " got " + own.makefile().read().strip()


def serve(stream, path):
    global numbers
    with stream, stream.makefile("rw") as file:
        for line in file:
            with TURN:
                numbers += 1
                number = numbers
            if line == "talk\n":
                answer = talk(path)
            elif stream.family == socket.AF_UNIX:
                answer = shown(stream)
            else:
                answer = "by the port"
            file.write(f"{number} {line.strip()}: {answer}\n")
            file.flush()


def accept_all(listener, path):
    while True:
        stream, peer = listener.accept()
        threading.Thread(target=serve, args=(stream, path), daemon=True).start()


port, path = int(sys.argv[1]), sys.argv[2]
if os.path.exists(path):
    os.unlink(path)
door = socket.socket(socket.AF_UNIX)
door.bind(path)
os.chmod(path, 0o666)
door.listen(20)
threading.Thread(target=accept_all, args=(door, path), daemon=True).start()
accept_all(socket.create_server(("0.0.0.0", port), backlog=20), path)
