// A message board on the standard library's HTTP server, everything in memory and in a file.

const crypto = require("crypto");
const fs = require("fs");
const http = require("http");

const messages = [];

function answer(response, status, text) {
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(text),
  });
  response.end(text);
}

function post(text, response) {
  const message = {
    time: Date.now(),
    token: crypto.randomBytes(8).toString("hex"),
    chance: Math.random(),
    text,
    number: messages.length + 1,
  };
  messages.push(message);
  // By a thread of the pool.
  fs.appendFile("board.log", JSON.stringify(message) + "\n", (error) => {
    answer(response, error ? 500 : 201, JSON.stringify(message));
  });
}

const server = http.createServer((request, response) => {
  if (request.method !== "POST") {
    const lines = messages.map((message) => JSON.stringify(message) + "\n");
    return answer(response, 200, lines.join(""));
  }
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => post(Buffer.concat(pieces).toString(), response));
});

server.listen(8000, "0.0.0.0");
