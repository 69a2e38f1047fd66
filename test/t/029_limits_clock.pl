# A wall clock that is stepped changes no rate limit: neither forth, nor back,
# nor over a restart.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($library) = glob '/usr/lib/*/faketime/libfaketime.so.1';
plan skip_all => 'libfaketime is not installed' unless $library;

my $node = PlinthTest::node('main', start => 0);
my $offset = $node->basedir . '/offset';

sub step
{
	my ($by) = @_;
	open my $fh, '>', $offset or die;
	print $fh "$by\n";
	close $fh;
	return;
}

sub start
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FAKETIME_TIMESTAMP_FILE} = $offset;
	local $ENV{FAKETIME_NO_CACHE} = 1;
	local $ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
	local $ENV{DONT_FAKE_MONOTONIC} = 1;
	$node->start;
	return;
}

# How far the server's wall clock is from ours, in days.
sub days
{
	return $node->safe_psql('postgres', 'SELECT round(EXTRACT(epoch FROM clock_timestamp() - to_timestamp(' . time() . ')) / 86400)');
}

sub left
{
	my ($policy) = @_;
	return $node->safe_psql('postgres',
		"SELECT allowed, remaining, ceil(EXTRACT(epoch FROM reset_after) / 86400 / 10) FROM plinth.rate_limit_check('$policy', 'a', 0)");
}

step('+0');
start();
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION plinth;
SELECT plinth.rate_limit_create('bucket', 5, '100 days', scope => 'key'), plinth.rate_limit_create('window', 5, '366 days', algorithm => 'fixed_window', scope => 'key');
SELECT plinth.rate_limit_check('bucket', 'a', 4), plinth.rate_limit_check('window', 'a', 4);
SQL
my $bucket = 't|1|8';
my $window = left('window');
is(days(), 0, 'the clock is right');
is(left('bucket'), $bucket, 'a bucket');
like($window, qr/^t\|1\|/, 'a window');

foreach my $by ('+500d', '-30d')
{
	step($by);
	(my $number = $by) =~ s/[+d]//g;
	is(days(), $number, "the clock is stepped by $by");
	is(left('bucket'), $bucket, 'the bucket is as it was');
	is(left('window'), $window, 'and so is the window');
}

# It starts with a clock that is behind what was saved: time goes on from there.
$node->stop('fast');
start();
is(days(), -30, 'started with a clock that is behind');
is(left('bucket'), $bucket, 'the bucket is as it was');
is(left('window'), $window, 'and so is the window');

# One that is right again, or ahead, is believed as the server starts.
$node->stop('fast');
step('+50d');
start();
is(left('bucket'), 't|3|3', 'fifty days later by the clock at the start');
$node->stop('fast');

done_testing();
