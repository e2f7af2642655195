#!/bin/sh
# As tree.sh, but it says nothing, and does not go when it is asked to.
trap '' TERM
sleep 1000 &
echo $$ $! > "$QUERY_STRING.draft"
mv "$QUERY_STRING.draft" "$QUERY_STRING"
wait
sleep 1000
