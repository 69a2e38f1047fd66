
=pod

=head1 NAME

ExamplesTest - the applications under examples/, installed and looked at

=cut

package ExamplesTest;

use strict;
use warnings;

use IPC::Run;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Runs schema.sql, data.sql and sync.sql of an application in a database, with
# its collections in a database of its own in MongoDB, whose name is returned.
sub install
{
	my ($node, $dbname, $mongo, $app) = @_;
	my $uri = $mongo->uri;
	my $mapping = '';
	my $database = "examples_$app";
	if ($uri =~ s{^(mongodb(?:\+srv)?://)([^@/]*)@}{$1})
	{
		my ($user, $password) = map { s/%([0-9A-Fa-f]{2})/chr(hex($1))/egr } split /:/, $2, 2;
		$mapping = 'OPTIONS (username ' . PlinthTest::quote_literal($user) . ', password ' . PlinthTest::quote_literal($password // '') . ')';
	}
	PlinthTest::mongo_eval($mongo->client_uri, "client.drop_database('$database')");
	foreach my $part (qw(schema data sync))
	{
		my $out = '';
		my $ok = IPC::Run::run(
			[
				'psql', '-qX', '-d', $node->connstr($dbname), '-v', 'ON_ERROR_STOP=1', '-v', "uri=$uri", '-v', "database=$database",
				'-v', "mapping=$mapping", '-o', '/dev/null', '-f', "$ENV{PLINTH_ROOT}/examples/$app/$part.sql"
			],
			'<', \undef, '>&', \$out, IPC::Run::timeout($PlinthTest::patience));
		ok($ok, "$app: $part.sql") or diag($out);
	}
	return $database;
}

# As tests: everything is delivered, every declared index is there.
sub arrives
{
	my ($node, $dbname, $name) = @_;
	is($node->safe_psql($dbname, "SELECT plinth.sync_wait('180s')"), 't', "$name: delivered")
	  or diag($node->safe_psql($dbname, 'SELECT * FROM plinth.stat_sync'));
	is($node->safe_psql($dbname, 'SELECT count(*) FROM plinth.sync_dead_letters'), 0, "$name: nothing was refused")
	  or diag($node->safe_psql($dbname, 'SELECT * FROM plinth.sync_dead_letters'));
	return;
}

# As a test: PyMongo finds the seed's collections, fields, types, ids and indexes.
sub shapes
{
	my ($mongo, $app, $database) = @_;
	my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
	my $out = '';
	my $ok = IPC::Run::run([ $python, "$ENV{PLINTH_ROOT}/test/servers/seeds.py", $mongo->client_uri, $app, $database ],
		'<', \undef, '>&', \$out, IPC::Run::timeout($PlinthTest::patience));
	my @wrong = grep { !/^looked at / } split /\n/, $out;
	ok($ok && !@wrong, "$app: every collection is as the seed has it") or diag($out);
	return scalar(() = $out =~ /^looked at /mg);
}

1;
