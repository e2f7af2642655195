#!/bin/sh
# Answers at once and never reads its input.
printf 'Content-Type: text/plain\n\nnot listening\n'
