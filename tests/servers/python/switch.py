"""Answers with what is in the file `switch` of its working directory. Takes its port as the argument.

If that begins with "lock", a lock is taken once more than usual, and nobody outside sees a difference.
"""

import socket
import sys
import threading

lock = threading.Lock()
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))


def serve(client):
    while client.recv(100):
        with open("switch", encoding="ascii") as file:
            word = file.read()
        with lock:
            answer = word.encode()
        if word.startswith("lock"):
            with lock:
                answer = b"open"
        client.sendall(answer)


while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,)).start()
