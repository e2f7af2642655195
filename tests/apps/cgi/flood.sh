#!/bin/sh
# QUERY_STRING bytes of output before the first of the input is read, then the input's length.
printf 'Content-Type: application/octet-stream\n\n'
head -c "$QUERY_STRING" /dev/zero
wc -c
