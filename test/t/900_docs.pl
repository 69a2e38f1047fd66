# The examples in the documentation run: each ```sql block that follows a line
# "<!-- test -->", one after another, each page in a database of its own.  What
# it prints is the block after it that follows a line "<!-- shows -->", if any.
use strict;
use warnings;

use PlinthTest;
use Test::More;

my $node = PlinthTest::node('docs', extension => 0, root_key => 1);
my $mongo = PlinthTest::mongo_start();
my $root = $ENV{PLINTH_ROOT};
my @pages = ("$root/README.md", glob "$root/docs/*.md $root/docs/recipes/*.md");
my $number = 0;

# Every page has a section of MongoDB of its own.
sub blocks
{
	my ($page) = @_;
	my $text = PostgreSQL::Test::Utils::slurp_file($page);
	my @blocks;
	while ($text =~ /^<!-- test -->\n```sql\n(.*?)^```$(?:\n<!-- shows -->\n```\n(.*?)\n```$)?/msg)
	{
		my ($block, $shows, $line) = ($1, $2, 1 + (substr($text, 0, $-[1]) =~ tr/\n//));
		my $uri = $mongo->uri;
		$block =~ s{mongodb://db\.example\.com[^'/]*/?}{$uri}g;
		$block =~ s{\bdatabase '(\w+)'}{database 'docs_${number}_$1'}g;
		push @blocks, [ $line, $block, $shows ];
	}
	return @blocks;
}

foreach my $page (@pages)
{
	my ($name) = $page =~ m{([^/]+)$};
	$number++;
	my @blocks = blocks($page) or next;
	$node->safe_psql('postgres', "CREATE DATABASE docs$number");
	$node->safe_psql("docs$number", 'CREATE EXTENSION plinth');
	foreach my $block (@blocks)
	{
		my ($line, $sql, $shows) = @$block;
		my $out = PlinthTest::psql_ok($node, "docs$number", $sql, "$name, line $line", timeout => 120);
		is($out, $shows, "$name, line $line: what it shows") if defined $shows;
	}
}

# Links between pages lead somewhere.
foreach my $page (@pages)
{
	my ($dir, $name) = $page =~ m{^(.*)/([^/]+)$};
	my $text = PostgreSQL::Test::Utils::slurp_file($page);
	my @broken = grep { !-e "$dir/$_" } $text =~ /\]\((?!https?:)([^)#\s]+)/g;
	is("@broken", '', "$name: its links lead to files");
}

# Every type that PostgreSQL brings has a line: those that mongo_all_types.sql has
# an example of, which looks into pg_type itself.
my $types = PostgreSQL::Test::Utils::slurp_file("$root/docs/types.md");
my ($examples) = PostgreSQL::Test::Utils::slurp_file("$root/test/sql/mongo_all_types.sql") =~ /^INSERT INTO example VALUES\n(.*?);$/ms;
my @types = $examples =~ /\('([^']+)', /g;
push @types, PostgreSQL::Test::Utils::slurp_file("$root/test/sql/mongo_all_types.sql") =~ /\('([^']+)', NULL\)/g;
cmp_ok(scalar @types, '>', 80, 'types.md: there are types to look for');
is(join(', ', grep { $types !~ /^\|[^|]*`\Q$_\E`[^|]*\|/m } @types), '', 'types.md: every type has a line');

done_testing();
