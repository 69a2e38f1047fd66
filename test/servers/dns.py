#!/usr/bin/env python3
"""A name server for tests, over UDP.

    dns.py [--port N] [--stdin] FILE

Prints "port N"; with --stdin it ends when standard input does.  FILE holds a
record a line, and is read anew at each question:

    NAME SRV PORT TARGET
    NAME TXT TEXT
    NAME hang              no answer, whatever is asked

What is not there does not exist (NXDOMAIN).
"""

import argparse
import os
import socket
import struct
import sys
import threading

TYPES = {"TXT": 16, "SRV": 33}


def encode_name(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def encode_data(kind, rest):
    if kind == "SRV":
        port, target = rest.split()
        return struct.pack(">HHH", 0, 0, int(port)) + encode_name(target)
    return bytes([len(rest)]) + rest.encode()


def answer(question, lines):
    """The message to send, or None."""
    at = 12
    parts = []
    while question[at]:
        parts.append(question[at + 1:at + 1 + question[at]].decode())
        at += question[at] + 1
    name = ".".join(parts).lower()
    asked = struct.unpack_from(">H", question, at + 1)[0]
    known = False
    answers = []
    for line in lines:
        owner, kind, rest = (line.split(None, 2) + ["", ""])[:3]
        if owner != name:
            continue
        if kind == "hang":
            return None
        known = True
        if TYPES[kind] == asked:
            data = encode_data(kind, rest.strip())
            answers.append(struct.pack(">HHHIH", 0xC00C, asked, 1, 0, len(data)) + data)
    head = question[:2] + struct.pack(">HHHHH", 0x8580 | (0 if known else 3), 1, len(answers), 0, 0)
    return head + question[12:at + 5] + b"".join(answers)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdin", action="store_true")
    parser.add_argument("file")
    options = parser.parse_args()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", options.port))
    print("port %d" % server.getsockname()[1], flush=True)
    if options.stdin:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    while True:
        question, peer = server.recvfrom(4096)
        with open(options.file) as records:
            message = answer(question, [line for line in records if line.strip()])
        if message is not None:
            server.sendto(message, peer)


if __name__ == "__main__":
    main()
