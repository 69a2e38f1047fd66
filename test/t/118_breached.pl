# A file of a million breached passwords is read in bounded memory.
use strict;
use warnings;

use Digest::SHA qw(sha1_hex);
use PlinthTest qw(psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\nautovacuum = off\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }

# In the order of the hashes, with what the test looks for among them.
my $lines = 1_000_000;
my $file = PostgreSQL::Test::Utils::tempdir() . '/breached.txt';
my %count = ('password123' => 126927, 'correct horse' => 2, 'Tr0ub4dor&3' => 7);
my @wanted = sort { $a->[0] cmp $b->[0] } map { [ uc sha1_hex($_), $count{$_} ] } keys %count;
open my $fh, '>', $file or die $!;
foreach my $i (0 .. $lines - @wanted - 1)
{
	my $hash = sprintf '%08X%032X', $i * 4290, $i;
	while (@wanted && $wanted[0][0] lt $hash)
	{
		my $line = shift @wanted;
		print $fh "$line->[0]:$line->[1]\r\n";
	}
	print $fh "$hash:", 1 + $i % 5, "\r\n";
}
print $fh "$_->[0]:$_->[1]\r\n" foreach @wanted;
close $fh;

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
sub peak { return slurp_file("/proc/$pid/status") =~ /^VmPeak:\s+(\d+) kB/m ? $1 : die; }
$session->query_safe("SELECT ok FROM plinth.password_check('x')");
my $before = peak();
is($session->query_safe("SELECT plinth.breached_passwords_load('$file')"), $lines, 'a million lines are loaded');
cmp_ok(peak() - $before, '<', 20_000, sprintf 'in %d kB', peak() - $before);
is($session->query_safe("SELECT plinth.breached_passwords_load('$file', 6)"), '0', 'again: nothing new');
$session->quit;

is(sql("SELECT p, (plinth.password_check(p)).ok FROM unnest(ARRAY['correct horse', 'password123', 'Tr0ub4dor&3', 'battery staple']) p ORDER BY p COLLATE \"C\""),
	"Tr0ub4dor&3|f\nbattery staple|t\ncorrect horse|f\npassword123|f", 'they are found');
psql_fails_like($node, 'postgres', "SELECT plinth.sign_up('ann\@test.test', 'correct horse')", qr/password is known to others\nDETAIL: +password_breached/, 'signing up with one');
sql('TRUNCATE plinth.breached_passwords');
is(sql("SELECT plinth.breached_passwords_load('$file', 7)"), '2', 'those that are counted often enough');
is(sql("SELECT status FROM plinth.sign_up('ann\@test.test', 'correct horse')"), 'ok', 'the others are let through');

# Files of other forms: told by the line, and nothing is loaded.
foreach my $bad ('5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD:1', '5BAA61E4C9B93F3F0682250B6CF8331B7EE68FDX:1', '5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8 1',
	'5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:', '5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:1x', '5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:-1', "\0" . 'x' x 50, 'x' x 1000)
{
	unlink $file;
	append_to_file($file, ('0' x 40) . "\n$bad\n");
	psql_fails_like($node, 'postgres', "SELECT plinth.breached_passwords_load('$file')", qr/line 2 of file ".*" is not valid/, substr($bad, 36, 8) =~ s/[^ -~]/?/gr);
}
is(sql('SELECT count(*) FROM plinth.breached_passwords'), '2', 'nothing of them was loaded');
unlink $file;
append_to_file($file, "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8\n\n5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD9:18446744073709551615");
is(sql("SELECT plinth.breached_passwords_load('$file')"), '1', 'small letters, no count, an empty line, no newline, a large count; the same ten bytes');
is(sql("SELECT ok FROM plinth.password_check('password')"), 'f', 'and found');
psql_fails_like($node, 'postgres', "SELECT plinth.breached_passwords_load('/nowhere')", qr/could not open file/, 'no file');

# Who may.
sql('CREATE ROLE librarian LOGIN IN ROLE plinth_admin, pg_read_server_files; CREATE ROLE reader LOGIN IN ROLE plinth_admin');
is($node->safe_psql('postgres', "SELECT plinth.breached_passwords_load('$file')", extra_params => [ '-U', 'librarian' ]), '0', 'an administrator who may read files');
psql_fails_like($node, 'postgres', "SELECT plinth.breached_passwords_load('$file')", qr/must be a superuser or a member/, 'another one', extra_params => [ '-U', 'reader' ]);

$node->stop;
done_testing();
