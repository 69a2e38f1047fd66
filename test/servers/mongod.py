#!/usr/bin/env python3
"""A real mongod as a one-node replica set in a folder of its own.

    mongod.py [--port N] [--stdin]

Prints "port N" when it is primary; ends with standard input when asked to.
Writes are acknowledged by the majority as in production.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pymongo


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdin", action="store_true")
    options = parser.parse_args()
    port = options.port or free_port()
    # The same port finds the same data again, as long as it is the same starter's.
    folder = os.path.join(tempfile.gettempdir(), "plinth-mongod-%d-%d" % (os.getppid(), port))
    os.makedirs(folder, exist_ok=True)
    server = subprocess.Popen(
        ["mongod", "--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1",
         "--replSet", "plinth", "--logpath", os.path.join(folder, "log")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def stop(*_):
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    client = pymongo.MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=30000)
    try:
        client.admin.command("replSetInitiate", {
            "_id": "plinth", "members": [{"_id": 0, "host": "127.0.0.1:%d" % port}]})
    except pymongo.errors.OperationFailure as error:
        if error.code != 23:  # AlreadyInitialized
            raise
    while not client.admin.command("isMaster")["ismaster"]:
        time.sleep(0.1)
    print("port %d" % port, flush=True)

    if options.stdin:
        def end_with_stdin():
            sys.stdin.buffer.read()
            server.kill()
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
