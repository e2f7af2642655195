#!/bin/sh
# The smallest CGI program.
printf 'Content-Type: text/plain\r\n\r\nhello\n'
