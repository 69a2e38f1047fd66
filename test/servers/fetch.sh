#!/bin/bash
# fetch.sh [DIR]: puts the MongoDB-compatible test server and the client in Java
# (jars and our main classes) into DIR, build/servers by default.  Does nothing when it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../build/servers}
. "$here/once.sh" "$here"/mongo/*

for program in mvn javac; do
	command -v $program >/dev/null ||
		{ echo "fetch.sh: $program is missing (apt-get install maven openjdk-17-jdk-headless)" >&2; exit 1; }
done
rm -rf "$dir/jars" "$dir/classes"
# Maven keeps its downloads where the user keeps them, or beside ours where
# the user has no home to write to.
repository=()
if [ ! -w "$HOME" ]; then
	repository=("-Dmaven.repo.local=$dir/m2")
fi
mvn -q -B -f "$here/mongo/pom.xml" "${repository[@]}" dependency:copy-dependencies \
	-DoutputDirectory="$dir/jars" </dev/null >&2
mkdir -p "$dir/classes"
javac -cp "$dir/jars/*" -d "$dir/classes" "$here"/mongo/*.java
echo "$want" >"$dir/.done"
