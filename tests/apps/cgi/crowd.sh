#!/bin/sh
# Notes in QUERY_STRING/log how many of itself are running.
: > "$QUERY_STRING/run.$$"
ls "$QUERY_STRING" | grep -c '^run' >> "$QUERY_STRING/log"
sleep 0.05
rm "$QUERY_STRING/run.$$"
printf 'Content-Type: text/plain\n\ndone\n'
