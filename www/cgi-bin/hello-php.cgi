#!/usr/bin/php-cgi
<?php
require __DIR__ . '/../hello.php';
