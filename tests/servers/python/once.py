"""Counts datagrams and says which of them came more than once. Takes its port as the argument, over TCP too."""

import selectors
import socket
import sys

port = int(sys.argv[1])
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", port))
listener = socket.create_server(("0.0.0.0", port))
selector = selectors.DefaultSelector()
selector.register(datagrams, selectors.EVENT_READ)
selector.register(listener, selectors.EVENT_READ)
seen = {}
while True:
    for key, _ in selector.select():
        if key.fileobj is datagrams:
            question, peer = datagrams.recvfrom(1000)
            seen[question] = seen.get(question, 0) + 1
            datagrams.sendto(b"%d %s" % (len(seen), question), peer)
        else:
            client, _ = listener.accept()
            doubled = [question for question, count in seen.items() if count > 1]
            client.sendall(b"%d seen, doubled: %s\n" % (len(seen), b" ".join(doubled)))
            client.close()
