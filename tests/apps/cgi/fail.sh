#!/bin/sh
# Answers "partly"; then sh does what QUERY_STRING is: exit3, segv, kill.
printf 'Content-Type: text/plain\n\npartly\n'
case $QUERY_STRING in
exit3) exit 3 ;;
segv) kill -SEGV $$ ;;
kill) kill -KILL $$ ;;
esac
