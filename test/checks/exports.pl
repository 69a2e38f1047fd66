# The library exports what PostgreSQL calls by name, and nothing else; and the
# install script and the library agree on the functions in C.
use strict;
use warnings;
use Test::More;

my %symbols = map { $_ => 1 } map { (split)[-1] } grep { / [TDBRV] / } `nm -D --defined-only plinth.so`;
ok(%symbols, 'plinth.so is readable');

my %allowed = map { $_ => 1 } qw(Pg_magic_func _PG_init _PG_output_plugin_init);
my %functions = map { /^pg_finfo_(\w+)$/ ? ($1 => 1) : () } keys %symbols;
my @others = grep {
	!$allowed{$_} && !/^pg_finfo_/ && !$functions{$_} && !/^plinth_\w+_main$/
} sort keys %symbols;
is(join(' ', @others), '', 'nothing is exported but entry points');

my ($script) = glob 'build/plinth--*.sql';
open my $fh, '<', $script or die "$script: $!";
my $sql = do { local $/; <$fh> };
my %called;
while ($sql =~ /'MODULE_PATHNAME'\s*,\s*'(\w+)'/gi) { $called{$1} = 1; }
is(join(' ', grep { !$functions{$_} } sort keys %called), '', 'what SQL calls is in the library');
is(join(' ', grep { !$called{$_} } sort keys %functions), '', 'what the library offers is called by SQL');
done_testing();
