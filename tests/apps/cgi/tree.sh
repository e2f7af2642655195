#!/bin/sh
# Runs for good, with a child that holds its output. Their ids are in the file that QUERY_STRING names.
printf 'Content-Type: text/plain\n\nrunning\n'
sleep 1000 &
echo $$ $! > "$QUERY_STRING.draft"
mv "$QUERY_STRING.draft" "$QUERY_STRING"
wait
