"""Tells the inode numbers of some files below /proc to whoever connects. Takes its port as the argument."""

import os
import socket
import sys

FILES = ["sys/kernel/ngroups_max", "sys/vm/overcommit_memory", "self/maps", "meminfo"]

listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    client, _ = listener.accept()
    client.recv(1)
    numbers = [os.stat("/proc/" + name).st_ino for name in FILES]
    client.sendall(f"{numbers}\n".encode())
    client.close()
