# Documents of random queries over random small schemas: whatever is written,
# each document equals what the query returns.
#
# First the ways alone, without an engine: after a transaction of random
# writes, each document that changed must be among those that the old and new
# rows lead to.  Then all of it, MongoDB's side read by a client that is not
# ours.  A failure names its seed; PLINTH_SEED=n runs that one alone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DocumentModel;
use PlinthTest;
use Test::More;

my $long  = $ENV{PLINTH_LONG};
my $start = $ENV{PLINTH_SEED} // ($long ? time() % 1_000_000 : 1);
my $node = PlinthTest::node('model', conf => <<'CONF');
plinth.sync_checkpoint_interval = '100ms'
jit = off
client_min_messages = error
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');
$node->safe_psql('postgres', DocumentModel::harness());

sub sql { return $node->safe_psql('postgres', $_[0]); }
diag("seeds from $start on");

# ---- the ways ---------------------------------------------------------------
my %outcomes;
for my $seed ($start .. $start + ($ENV{PLINTH_SEED} ? 0 : $long ? 99 : 7))
{
	my $model = DocumentModel->new($seed);
	my $script = "CREATE SCHEMA s$seed; SET search_path = s$seed;\n" . $model->schema . $model->watched;
	for (1 .. 10)
	{
		my ($root, $query) = $model->query;
		for (1 .. 3)
		{
			$script .= 'SELECT ' . $model->trial($root, $query, map { $model->write } 1 .. 3 + int rand 6) . ";\n";
		}
	}
	for my $outcome (split /\n/, sql("$script DROP SCHEMA s$seed CASCADE;"))
	{
		$outcomes{ $outcome =~ /^(ok|same|refused)/ ? $1 : 'missed' }++;
		fail("seed $seed: $outcome") unless $outcome =~ /^(?:ok|same|refused)/;
	}
}
ok(!$outcomes{missed}, 'each document that changed was marked');
cmp_ok($outcomes{ok}, '>', ($outcomes{refused} // 0), "$outcomes{ok} times documents changed");

# ---- all of it ---------------------------------------------------------------

# Some transactions, one of which may be undone in part or whole, and a table emptied now and then.
sub transactions
{
	my ($model) = @_;
	my @statements;
	for (1 .. 1 + int rand 4)
	{
		my @writes = map { $model->write } 1 .. 1 + int rand 4;
		push @writes, 'SAVEPOINT a', $model->write, 'ROLLBACK TO a' if rand() < 0.2;
		push @statements, 'BEGIN', @writes, rand() < 0.1 ? 'ROLLBACK' : 'COMMIT';
	}
	push @statements, 'TRUNCATE ' . DocumentModel::pick(map { $_->{name} } @{ $model->{tables} }) . ' CASCADE' if rand() < 0.03;
	return join '; ', @statements;
}

my $cases = 0;
SEED:
for my $seed ($start .. $start + ($ENV{PLINTH_SEED} ? 0 : $long ? 24 : 1))
{
	my $model = DocumentModel->new($seed);
	my $path  = "SET search_path = e$seed;";
	my @mappings;
	sql("CREATE SCHEMA e$seed; $path" . $model->schema);
	while (@mappings < 8)
	{
		my ($root, $query) = $model->query;
		my $name = "e${seed}_" . @mappings;
		my $lanes = 1 + int rand 3;
		my ($rc, $out, $err) = $node->psql('postgres',
			"$path SELECT plinth.sync_document('$name', 'docs', '$name', '$root', \$q\$$query\$q\$, lanes => $lanes)");
		next if $err =~ /not certain|FULL JOIN is only supported/;
		is($rc, 0, "seed $seed: a mapping of $query") or diag($err) && last SEED;
		push @mappings, { name => $name, root => $root, query => $query };
	}
	for my $round (1 .. 12)
	{
		my $writes = $round > 1 ? transactions($model) : '';
		# The answer to each statement but the last is of no interest.
		my $delivered = sql("$path $writes; SELECT plinth.sync_wait('180s')");
		is($delivered, 't', "seed $seed, round $round: delivered") or last SEED;
		for my $mapping (@mappings)
		{
			$cases++;
			my @differences = PlinthTest::differences($node, 'postgres', "$path " . $model->ids($mapping->{root}, $mapping->{query}),
				$mongo, 'app', $mapping->{name});
			next unless @differences;
			fail("seed $seed, round $round, $mapping->{name}: as the query has it");
			diag(join "\n", $mapping->{query}, $writes, @differences);
			last SEED;
		}
	}
	is(sql(join ' UNION ALL ', map { "SELECT count(*) FROM plinth.sync_verify('$_->{name}')" } @mappings),
		join("\n", (0) x @mappings), "seed $seed: both sides are equal to verify too");
	sql("SELECT plinth.sync_drop(name) FROM plinth.sync_mappings; DROP SCHEMA e$seed CASCADE");
}
cmp_ok($cases, '>=', $ENV{PLINTH_SEED} ? 1 : $long ? 2000 : 100, "$cases cases");

done_testing();
