#!/bin/sh
# Makes QUERY_STRING.started, and answers when the file QUERY_STRING.go is there.
echo $$ > "$QUERY_STRING.started"
while [ ! -e "$QUERY_STRING.go" ]; do sleep 0.01; done
printf 'Content-Type: text/plain\n\nthrough\n'
