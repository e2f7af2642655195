#!/usr/bin/perl
# One program, both models, as src/hello.c: FCGI.pm's Accept() returns once under CGI, and for every request under
# FastCGI. cgi-bin/hello-perl.cgi runs this file too.
use strict;
use warnings;
use FCGI;
use POSIX qw(strftime);

my $request = FCGI::Request();
my $fastcgi = $request->IsFastCGI();
my $model = $fastcgi ? 'fastcgi' : 'cgi';
my $name = $fastcgi ? 'FastCGI' : 'CGI';
my $says = $fastcgi
    ? 'A process that lives: it answered, and waits for the next request.'
    : 'A new process, started for this request and gone after it.';
my $served = 0;

# Digits, letters and the hyphen as they are, any other byte by its number.
sub escaped {
    my ($text, $format) = @_;
    $text =~ s/([^0-9A-Za-z-])/sprintf $format, ord $1/ge;
    return $text;
}

while ($request->Accept() >= 0) {
    $served++;
    my $id = $ENV{REQUEST_ID} // '';
    if (($ENV{QUERY_STRING} // '') eq 'json') {
        $id = escaped($id, '\u%04x');
        print "Content-Type: application/json\r\nCache-Control: no-store\r\n\r\n",
            qq({"program":"Perl","model":"$model","pid":$$,"served":$served,"id":"$id"}\n);
        next;
    }
    $id = escaped($id, '&#%d;');
    my $clock = strftime('%H:%M:%S', localtime);
    print "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n", <<"END";
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Perl as $name</title>
<link rel="icon" href="/favicon.svg">
<link rel="stylesheet" href="/style.css">
<main class="answer $model">
<p><a href="/">gatehouse</a></p>
<h1>Perl <span>as $name</span></h1>
<p>$says</p>
<dl>
<div><dt>Process</dt><dd>$$</dd></div>
<div><dt>Requests it has served</dt><dd>$served</dd></div>
<div><dt>Time of day</dt><dd>$clock</dd></div>
<div><dt>Request</dt><dd>$id</dd></div>
</dl>
<p><a href="?">Again</a> <a href="?json">As JSON</a></p>
</main>
END
}

1;
