#!/bin/sh
# For programs that read no variables: render.sh FROM TO PROGRAM... replaces each ${NAME} in the file FROM by the variable NAME,
# writes the result to TO, and becomes PROGRAM. A variable that is not set is an error.
set -eu
from=$1 to=$2
shift 2
script=
for name in $(grep -o '\${[A-Z_]*}' "$from" | tr -d '${}' | sort -u); do
    eval "value=\${$name:?is used in $from}"
    script="$script;s|\${$name}|$value|g"
done
sed "${script#;}" "$from" >"$to"
exec "$@"
