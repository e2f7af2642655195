#!/bin/sh
# The bytes of the file that QUERY_STRING names are the whole answer, head included.
exec cat "$QUERY_STRING"
