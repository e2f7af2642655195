#!/usr/bin/perl
use strict;
use warnings;
use FindBin;

require "$FindBin::RealBin/../hello-perl.fcgi";
