#!/usr/bin/perl
# run_tap.pl [-j N] [-t SECONDS] -r RESULTS [-e COMMAND] FILE…
#
# Runs what speaks TAP (Perl files by perl, others by themselves, or every
# file by "COMMAND FILE") and appends one line a test to RESULTS:
# "ok|fail|skip <tab> name <tab> reason".
use strict;
use warnings;
use Getopt::Long qw(:config require_order);
use TAP::Harness;

my ($jobs, $limit, $results, $exec) = (1, 900, undef, undef);
GetOptions('j=i' => \$jobs, 't=i' => \$limit, 'r=s' => \$results, 'e=s' => \$exec)
  or die "usage: see the head of $0\n";
my @files = @ARGV or exit 0;

open my $out, '>>', $results or die "$results: $!";
$out->autoflush(1);

sub record
{
	my ($status, $name, $reason) = @_;
	tr/\t\n/  / foreach $name, $reason;
	print $out "$status\t$name\t$reason\n";
	return;
}

my $harness = TAP::Harness->new({
	jobs => $jobs,
	merge => 0,
	failures => 1,
	comments => defined $exec,
	exec => sub {
		my (undef, $file) = @_;
		my @command = ('timeout', '-k', '10', $limit);
		return [ @command, split(/ /, $exec), $file ] if defined $exec;
		return [ @command, $^X, $file ] if $file =~ /\.pl$/;
		return [ @command, $file ];
	} });

$harness->callback(
	made_parser => sub {
		my ($parser, $job) = @_;
		my $file = $job->[0];
		$parser->callback(
			test => sub {
				my ($test) = @_;
				my $name = "$file: " . $test->number . ' ' . $test->description;
				if    ($test->has_skip)   { record('skip', $name, $test->explanation); }
				elsif (!$test->is_ok)     { record('fail', $name, ''); }
				else                      { record('ok',   $name, ''); }
			});
		$parser->callback(
			plan => sub {
				my ($plan) = @_;
				record('skip', $file, $plan->explanation) if $plan->has_skip;
			});
	});

my $aggregator = $harness->runtests(@files);

# Files that ended badly without a failed test: too few, a crash, a timeout.
foreach my $file ($aggregator->descriptions)
{
	my ($parser) = $aggregator->parsers($file);
	my @errors = $parser->parse_errors;
	my $exit = $parser->exit;
	push @errors, 'took longer than ' . $limit . ' s' if ($exit >> 8) == 124;
	push @errors, 'exit status ' . ($parser->wait >> 8 || $parser->wait)
	  if $parser->wait != 0 && !@errors && !$parser->failed;
	record('fail', $file, join('; ', @errors)) if @errors;
}
exit($aggregator->all_passed ? 0 : 1);
