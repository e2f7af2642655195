<?php
// One page, both models: as *.php it is run by a pool of living php-cgi processes, and cgi-bin/hello-php.cgi
// runs the same file in a php-cgi of its own. PHP forgets everything between two requests, but the process does not:
// its opcode cache knows how often it has run this file before.
$fastcgi = isset($_SERVER['FCGI_ROLE']);
$cache = function_exists('opcache_get_status') ? opcache_get_status() : false;
$facts = [
    'program' => 'PHP',
    'model' => $fastcgi ? 'fastcgi' : 'cgi',
    'pid' => getmypid(),
    'served' => ($cache['scripts'][__FILE__]['hits'] ?? 0) + 1,
    'id' => $_SERVER['REQUEST_ID'] ?? '',
];
$name = $fastcgi ? 'FastCGI' : 'CGI';
$says = $fastcgi ? 'A process that lives: it answered, and waits for the next request.'
                 : 'A new process, started for this request and gone after it.';
header('Cache-Control: no-store');
if (($_SERVER['QUERY_STRING'] ?? '') === 'json') {
    header('Content-Type: application/json');
    echo json_encode($facts, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    exit;
}
header('Content-Type: text/html; charset=utf-8');
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>PHP as <?= $name ?></title>
<link rel="icon" href="/favicon.svg">
<link rel="stylesheet" href="/style.css">
<main class="answer <?= $facts['model'] ?>">
<p><a href="/">gatehouse</a></p>
<h1>PHP <span>as <?= $name ?></span></h1>
<p><?= $says ?></p>
<dl>
<div><dt>Process</dt><dd><?= $facts['pid'] ?></dd></div>
<div><dt>Requests it has served</dt><dd><?= $facts['served'] ?></dd></div>
<div><dt>Time of day</dt><dd><?= date('H:i:s') ?></dd></div>
<div><dt>Request</dt><dd><?= htmlspecialchars($facts['id'], ENT_QUOTES | ENT_SUBSTITUTE) ?></dd></div>
</dl>
<p><a href="?">Again</a> <a href="?json">As JSON</a></p>
</main>
