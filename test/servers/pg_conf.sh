#!/bin/bash
# pg_conf.sh DIR: configures the cluster in DIR/data as plinth needs it, with
# its socket in DIR, a root key and no TCP.  For what PostgreSQL::Test::Cluster does not make.
set -euo pipefail
dir=$1
(umask 077 && openssl rand -hex 32 >"$dir/root.key")
cat >>"$dir/data/postgresql.conf" <<CONF
plinth.root_key_file = '$dir/root.key'
shared_preload_libraries = 'plinth'
wal_level = logical
listen_addresses = ''
port = 5432
unix_socket_directories = '$dir'
max_connections = 100
max_worker_processes = 32
max_prepared_transactions = 10
fsync = off
shared_buffers = 64MB
CONF
# Not grep -q, which would end before postgres does and make that a failure.
if postgres --describe-config | grep '^output_plugin_libraries	' >/dev/null; then
	echo "output_plugin_libraries = 'plinth'" >>"$dir/data/postgresql.conf"
fi
