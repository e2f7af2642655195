#!/bin/sh
# Writes to its standard error what could forge a log line; the last one has no line end.
printf 'first trouble\nsecond \033[31mtrouble\r\nlast trouble' >&2
printf 'Content-Type: text/plain\n\nfine\n'
