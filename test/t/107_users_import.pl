# Ten thousand users in one statement, with their hashes, and no secret in the log.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
log_min_duration_statement = 0
log_error_verbosity = verbose
CONF
my $hash = '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';    # of U*U, by crypt_blowfish

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Every hundredth has the address of the one before it.
sql(q{CREATE TABLE staging AS SELECT 'user' || CASE WHEN n % 100 = 0 THEN n - 1 ELSE n END || '@import.test' AS email, 'user' || n AS username,
	CASE WHEN n % 1000 = 1 THEN '} . $hash . q{' END AS password_hash, now() - n * interval '1 min' AS created_at FROM generate_series(1, 10000) n});
is(sql('SELECT status, count(*) FROM plinth.users_import((SELECT jsonb_agg(to_jsonb(t) ORDER BY length(username), username) FROM staging t)) GROUP BY 1 ORDER BY 1'),
	"email_taken|100\nok|9900", 'ten thousand at once, duplicates by row');
is(sql('SELECT count(*), count(DISTINCT lower(email)) FROM plinth.users'), '9900|9900', 'all but these are users');
is(sql(q{SELECT status FROM plinth.sign_in('user5001', 'U*U')}), 'ok', 'who signs in with the old password');
is(sql(q{SELECT left(phc, 9) FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE username = 'user5001'}), '$argon2id', 'and has a new hash');
is(sql('SELECT status, count(*) FROM plinth.users_import((SELECT jsonb_agg(to_jsonb(t)) FROM staging t)) GROUP BY 1'),
	"email_taken|100\nusername_taken|9900", 'once more: nobody twice');

# ---- what administrators search among them -----------------------------------------
sql('VACUUM ANALYZE plinth.users');
my ($after, @pages) = ('NULL');
while (1)
{
	my @page = split /\n/, sql("SELECT id || ' ' || username FROM plinth.users_search('user77', limit_count => 50, after => $after)");
	last unless @page;
	push @pages, @page;
	($after) = map { "'$_'" } $page[-1] =~ /^(\S+)/;
}
is(scalar @pages, 1 + 10 + 99, 'pages without gaps');
is_deeply(\@pages, [ sort @pages ], 'in the order of ids');
foreach my $case (
	[ q{lower(email) LIKE 'user7777%' OR lower(username) LIKE 'user7777%'}, qr/users_email_prefix_idx.*users_username_prefix_idx/s, 'the beginning of a name' ],
	[ q{status = 'banned'}, qr/users_status_idx/, 'a rare status' ],
	[ q{role = 'editor'}, qr/users_role_idx/, 'a rare role' ],
	[ q{tier = 'pro'}, qr/users_tier_idx/, 'a rare tier' ])
{
	like(sql("EXPLAIN SELECT * FROM plinth.users WHERE deleted_at IS NULL AND ($case->[0]) ORDER BY id LIMIT 50"), $case->[1], "$case->[2] has an index");
}

# ---- secrets --------------------------------------------------------------------------
$node->psql('postgres', qq{SELECT plinth.users_import('[{"email": "x\@import.test", "password_hash": "\$2b\$05\$SECRETSECRETSECRETSECRET"}]')});
$node->psql('postgres', qq{SELECT plinth.user_import('y\@import.test', '$hash')});
$node->psql('postgres', q{SELECT plinth.user_create('z@import.test', password => 'PLAIN SECRET WORDS')});
$node->psql('postgres', q{SELECT plinth.user_create('z@import.test', password => 'PLAIN SECRET WORDS')});
my $id = sql(q{SELECT id FROM plinth.users WHERE username = 'user1'});
my $key = sql("SELECT key FROM plinth.api_key_create('log', user_id => '$id')");
$node->psql('postgres', "SELECT plinth.context_begin('$key')");
$node->psql('postgres', "SELECT plinth.context_begin('$key') FROM no_such_table");
my $log = slurp_file($node->logfile);
# What a table of the application has is the application's to hide.
$log =~ s/^.*CREATE TABLE staging.*?(?=^\d{4}-)//msg;
unlike($log, qr/CCCCCC|SECRETSECRET|PLAIN SECRET|\Q$key\E/, 'no hash, password or key in the log');
is(sql("SELECT count(*) FROM plinth.audit_entries a WHERE a::text ~ 'CCCCCC|SECRET|plk_[A-Za-z0-9_-]{20}'"), 0, 'nor in the audit');
is(sql("SELECT count(*) FROM plinth.api_keys k WHERE k::text LIKE '%' || substr('$key', 13) || '%'"), 0, 'nor the key in its table');
done_testing();
