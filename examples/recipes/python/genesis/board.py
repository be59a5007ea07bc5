"""A message board: a thread for each connection, everything in memory."""

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

messages = []
lock = threading.Lock()


class Board(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        message = {"time": time.time(), "token": secrets.token_hex(8), "text": text}
        with lock:
            messages.append(message)
            message["number"] = len(messages)
        self.answer(201, json.dumps(message))

    def do_GET(self):
        with lock:
            lines = [json.dumps(message) + "\n" for message in messages]
        self.answer(200, "".join(lines))

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8000), Board).serve_forever()
