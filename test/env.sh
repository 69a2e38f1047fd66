# env.sh: sourced by the scripts that run tests.  Finds PostgreSQL (PG_CONFIG)
# and its test tools, and sets what PostgreSQL::Test::* and PlinthTest need.
PLINTH_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PLINTH_ROOT
PG_CONFIG=${PG_CONFIG:-pg_config}
command -v "$PG_CONFIG" >/dev/null || PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config
export PG_CONFIG

plinth_bindir=$("$PG_CONFIG" --bindir)
plinth_pgsrc=$(dirname "$("$PG_CONFIG" --pgxs)")/..
export PATH="$plinth_bindir:$PATH"

# The Perl modules come with Debian's postgresql-client-15; other builds of
# PostgreSQL may lack them, and those of 15 know how to run the newer ones.
# The pg_regress beside them is only asked to set up authentication.
for plinth_dir in "$plinth_pgsrc/test" /usr/lib/postgresql/15/lib/pgxs/src/test; do
	if [ -e "$plinth_dir/perl/PostgreSQL/Test/Cluster.pm" ]; then
		export PERL5LIB="$plinth_dir/perl:$PLINTH_ROOT/test/t"
		export PG_REGRESS="$plinth_dir/regress/pg_regress"
		break
	fi
done

# A Python that has PyMongo: the client that is not ours.
for plinth_python in "${PLINTH_PYTHON:-python3}" /usr/bin/python3; do
	if "$plinth_python" -c 'import pymongo' 2>/dev/null; then
		break
	fi
done
export PLINTH_PYTHON=$plinth_python
export PLINTH_SERVERS=${PLINTH_SERVERS:-$PLINTH_ROOT/build/servers}
unset plinth_dir plinth_python

# PostgreSQL refuses to run as root: as_tester runs a command as the user who
# may, which is the caller unless that is root.
if [ "$(id -u)" = 0 ]; then
	PLINTH_TESTER=${PLINTH_TESTER:-postgres}
	as_tester() { runuser -u "$PLINTH_TESTER" -- "$@"; }
else
	PLINTH_TESTER=$(id -un)
	as_tester() { "$@"; }
fi
