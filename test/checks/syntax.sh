#!/bin/bash
# Scripts parse, in the languages that tell without running them.
n=0
check() { # check NAME COMMAND…
	local name=$1 report
	shift
	n=$((n + 1))
	if report=$("$@" 2>&1); then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		sed 's/^/# /' <<<"$report"
	fi
}
mapfile -t shell < <(find . -name '*.sh' ! -path './build/*' | sort; [ ! -e .ci/run ] || echo .ci/run)
mapfile -t python < <(find . -name '*.py' ! -path './build/*' | sort)
check "shell scripts" bash -c 'for f in "$@"; do bash -n "$f" || exit 1; done' - "${shell[@]}"
check "Python scripts" python3 -c 'import ast, sys
for name in sys.argv[1:]:
    ast.parse(open(name).read(), name)' "${python[@]}"
echo "1..$n"
