#!/bin/sh
# Ends without any answer.
echo "cannot go on: no disk" >&2
exit 7
