#!/bin/sh
# "first"; "last" only when the file that QUERY_STRING names is there.
printf 'Content-Type: text/plain\n\nfirst\n'
while [ ! -e "$QUERY_STRING" ]; do sleep 0.01; done
echo last
