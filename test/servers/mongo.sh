#!/bin/bash
# mongo.sh [option…]: a MongoDB in the foreground, which prints "port N".
#
# A mongod on PATH serves as a one-node replica set; else the embedded
# compatible server does (see mongo/MongoTestServer.java for its options).
# PLINTH_MONGO=embedded asks for the latter.  MONGODB_URI is for the callers:
# where it is set they start nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${PLINTH_MONGO:-}" != embedded ] && [ $# -le 2 ] && command -v mongod >/dev/null; then
	exec "${PLINTH_PYTHON:-/usr/bin/python3}" "$here/mongod.py" "$@"
fi
servers=${PLINTH_SERVERS:-$here/../../build/servers}
"$here/fetch.sh" "$servers"
# shellcheck disable=SC2086
exec java ${PLINTH_JAVA_OPTS:--Xms64m -Xmx2g -XX:+UseSerialGC -Xshare:auto} \
	-cp "$servers/classes:$servers/jars/*" MongoTestServer "$@"
