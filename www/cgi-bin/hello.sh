#!/bin/sh
# CGI asks for nothing but an environment and standard output, so a shell script will do.
case ${REQUEST_ID:-} in
*[!0-9A-Za-z-]*) id='not shown: it has unusual characters' ;;
*) id=${REQUEST_ID:-} ;;
esac

if [ "${QUERY_STRING:-}" = json ]; then
    printf 'Content-Type: application/json\nCache-Control: no-store\n\n'
    printf '{"program":"Shell","model":"cgi","pid":%d,"served":1,"id":"%s"}\n' $$ "$id"
    exit
fi

cat <<END
Content-Type: text/html; charset=utf-8
Cache-Control: no-store

<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Shell as CGI</title>
<link rel="icon" href="/favicon.svg">
<link rel="stylesheet" href="/style.css">
<main class="answer cgi">
<p><a href="/">gatehouse</a></p>
<h1>Shell <span>as CGI</span></h1>
<p>A new process, started for this request and gone after it.</p>
<dl>
<div><dt>Process</dt><dd>$$</dd></div>
<div><dt>Requests it has served</dt><dd>1</dd></div>
<div><dt>Time of day</dt><dd>$(date +%T)</dd></div>
<div><dt>Request</dt><dd>$id</dd></div>
</dl>
<p><a href="?">Again</a> <a href="?json">As JSON</a></p>
</main>
END
