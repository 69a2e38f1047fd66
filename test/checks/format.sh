#!/bin/bash
# C files look as .clang-format says.
echo 1..1
files=$(find src test bench examples -name '*.[ch]' 2>/dev/null | sort)
if report=$(clang-format-14 --dry-run -Werror $files 2>&1); then
	echo "ok 1 - formatting"
else
	echo "not ok 1 - formatting"
	grep -E '(error|warning):' <<<"$report" | cut -d: -f1 | sort | uniq -c | sed 's/^/# places, file: /'
	echo "# clang-format-14 -i mends it"
fi
