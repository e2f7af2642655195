#!/usr/bin/python3
"""A CGI program is any program that reads its environment and writes to its standard output."""
import html
import json
import os
import time

request_id = os.environ.get("REQUEST_ID", "").encode("ascii", "replace").decode()
facts = {"program": "Python", "model": "cgi", "pid": os.getpid(), "served": 1, "id": request_id}

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Python as CGI</title>
<link rel="icon" href="/favicon.svg">
<link rel="stylesheet" href="/style.css">
<main class="answer cgi">
<p><a href="/">gatehouse</a></p>
<h1>Python <span>as CGI</span></h1>
<p>A new process, started for this request and gone after it.</p>
<dl>
<div><dt>Process</dt><dd>{pid}</dd></div>
<div><dt>Requests it has served</dt><dd>{served}</dd></div>
<div><dt>Time of day</dt><dd>{clock}</dd></div>
<div><dt>Request</dt><dd>{id}</dd></div>
</dl>
<p><a href="?">Again</a> <a href="?json">As JSON</a></p>
</main>"""

if os.environ.get("QUERY_STRING") == "json":
    print("Content-Type: application/json\nCache-Control: no-store\n")
    print(json.dumps(facts))
else:
    shown = {name: html.escape(str(value)) for name, value in facts.items()}
    print("Content-Type: text/html; charset=utf-8\nCache-Control: no-store\n")
    print(PAGE.format(clock=time.strftime("%H:%M:%S"), **shown))
