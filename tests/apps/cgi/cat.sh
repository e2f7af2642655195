#!/bin/sh
# The request's body, as it comes.
printf 'Content-Type: application/octet-stream\n\n'
exec cat
