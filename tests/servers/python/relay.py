"""An ordinary relay: passes what clients send on to another server, and its answers back.

It knows nothing of replication; the end-to-end tests wrap it.

usage: relay.py {events|threads} PORT ADDRESS:PORT [ECHO_PORT]

With ECHO_PORT it also is a server that sends back what it receives, to be relayed to.
"""

import asyncio
import socket
import sys
import threading

PIECE = 65536


def accept_all(port, serve):
    listener = socket.create_server(("0.0.0.0", port), backlog=100)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


def copy(source, sink):
    try:
        while piece := source.recv(PIECE):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for stream in (source, sink):
            stream.close()


def echo(stream):
    copy(stream, stream)
    stream.close()


def relay(stream, target):
    try:
        far = socket.create_connection(target)
    except OSError as error:
        stream.sendall(f"{error.strerror}\n".encode())
        stream.close()
        return
    back = threading.Thread(target=copy, args=(far, stream), daemon=True)
    back.start()
    copy(stream, far)
    back.join()
    far.close()
    stream.close()


async def copy_async(source, sink):
    while piece := await source.read(PIECE):
        sink.write(piece)
        await sink.drain()
    sink.write_eof()


async def echo_async(source, sink):
    await copy_async(source, sink)
    sink.close()


async def relay_async(source, sink, target):
    try:
        far_source, far_sink = await asyncio.open_connection(*target)
    except OSError as error:
        sink.write(f"{error.strerror}\n".encode())
        sink.close()
        return
    try:
        await asyncio.gather(copy_async(source, far_sink), copy_async(far_source, sink))
    except OSError:
        sink.transport.abort()
        far_sink.transport.abort()
    sink.close()
    far_sink.close()


async def main_async(port, target, echo_port):
    if echo_port:
        await asyncio.start_server(echo_async, "0.0.0.0", echo_port)
    server = await asyncio.start_server(
        lambda source, sink: relay_async(source, sink, target), "0.0.0.0", port
    )
    await server.serve_forever()


def main():
    kind, port, target = sys.argv[1], int(sys.argv[2]), sys.argv[3].rsplit(":", 1)
    target = (target[0], int(target[1]))
    echo_port = int(sys.argv[4]) if len(sys.argv) > 4 else None
    if kind == "events":
        asyncio.run(main_async(port, target, echo_port))
    if echo_port:
        threading.Thread(target=accept_all, args=(echo_port, echo), daemon=True).start()
    accept_all(port, lambda stream: relay(stream, target))


main()
