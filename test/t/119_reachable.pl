# What a client can reach: as each role that clients have, with and without a
# request context, every relation is read and every function that may be called
# is called with what a curious user would try.  Nothing of another user comes
# out, in results, notices or errors; nothing of hers changes; and no text
# becomes SQL.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
CONF

# Alice has something in every place where users' data is.  What is hers and was
# never told to anybody holds the word "hers".
my $password = 'a long password of hers';
my %id;
for my $name (qw(alice mallory))
{
	$id{$name} = $node->safe_psql('postgres',
		"SELECT user_id FROM plinth.sign_up('$name\@test.test', '$password $name', '$name')");
	($id{"${name}_token"}, $id{"${name}_session"}) = split /\|/, $node->safe_psql('postgres',
		"SELECT token, session_id FROM plinth.sign_in('$name', '$password $name', 'fingerprint $name', 'phone', 'agent $name', 'label $name')");
}
$node->safe_psql('postgres', <<"SQL");
UPDATE plinth.users SET full_name = 'a name of hers', metadata = '{"a": "metadata of hers"}', app_metadata = '{"b": "app of hers"}',
    avatar_url = 'https://a.test/hers' WHERE id = '$id{alice}';
UPDATE plinth.sessions SET label = 'a label of hers', user_agent = 'an agent of hers', device_fingerprint = 'a device of hers'
    WHERE user_id = '$id{alice}';
SELECT plinth.role_create('role_x'), plinth.user_role_grant('$id{alice}', 'role_x', reason => 'a reason of hers'),
    plinth.user_permission_grant('$id{alice}', 'x:y', reason => 'a reason of hers');
BEGIN;
SELECT plinth.context_begin('$id{alice_token}');
RESET ROLE;
SELECT plinth.audit_record('alice.did', 'a resource of hers', metadata => '{"c": "an entry of hers"}');
COMMIT;
SELECT plinth.cache_create('mine', per_user => true);
SELECT plinth.file_bucket_create('mine', per_user => true);
SELECT plinth.file_bucket_grant('mine', role, true) FROM unnest('{anon, authenticated, authenticator}'::regrole[]) AS role;
GRANT USAGE ON SCHEMA plinth TO PUBLIC;
CREATE TABLE notes (owner uuid NOT NULL, body text);
SELECT plinth.owner_policy('notes', 'owner');
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO PUBLIC;
INSERT INTO notes VALUES ('$id{alice}', 'a note of hers');
BEGIN;
SELECT plinth.context_begin('$id{alice_token}');
RESET ROLE;
SELECT plinth.cache_set_text('mine', 'key', 'an entry of hers');
SELECT plinth.file_put('mine', 'a file of hers', 'x'), plinth.file_put('mine', 'alice', 'x', metadata => '{"m": "a picture of hers"}');
COMMIT;
SQL

# The sweep runs as its caller.  What it finds is kept where only it writes.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE values_to_try (type regtype, variant int, value text, PRIMARY KEY (type, variant));
GRANT SELECT ON values_to_try TO PUBLIC;
-- Cheaper than any policy: it would see the rows before the policy does.
CREATE FUNCTION tell(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    RAISE NOTICE 'told: %', value;
    RETURN true;
END
$$;
CREATE FUNCTION try_value(type oid, variant int) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT v.value FROM public.values_to_try v WHERE v.type = $1 ORDER BY (v.variant <= $2) DESC, abs(v.variant - $2) LIMIT 1
$$;
-- One line for each thing that came out.
CREATE FUNCTION sweep(variants int) RETURNS TABLE (place text, state text, seen text) LANGUAGE plpgsql AS $$
DECLARE
    item record;
    call text;
    detail text;
    hint text;
BEGIN
    FOR item IN SELECT c.oid::regclass::text AS name FROM pg_class c
        WHERE c.relnamespace IN ('plinth'::regnamespace, 'public'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND c.relname <> 'values_to_try' ORDER BY 1
    LOOP
        place := item.name;
        BEGIN
            FOR seen IN EXECUTE format('SELECT t::text FROM %s t WHERE public.tell(t::text)', item.name) LOOP
                state := '';
                RETURN NEXT;
            END LOOP;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            state := SQLSTATE; seen := concat_ws(' ', SQLERRM, detail, hint);
            RETURN NEXT;
        END;
    END LOOP;
    FOR item IN SELECT p.oid, p.proargtypes::oid[] AS types, p.prokind, v AS variant FROM pg_proc p, generate_series(1, variants) v
        WHERE p.pronamespace = 'plinth'::regnamespace AND p.prokind IN ('f', 'p') AND p.prorettype <> 'trigger'::regtype
            AND has_function_privilege(p.oid, 'EXECUTE')
            -- These wait for what others do, or make others wait.
            AND p.proname NOT IN ('sync_wait', 'cache_purge')
            -- Who one is, is decided before the sweep.
            AND p.proname NOT IN ('context_begin', 'pre_request', 'user_delete_me')
        ORDER BY p.oid::regprocedure::text, v
    LOOP
        SELECT string_agg(format('%s::%s', coalesce(quote_literal(public.try_value(t.type, item.variant)), 'NULL'),
                CASE WHEN t.type IN ('anyelement'::regtype, 'anycompatible'::regtype) THEN 'text'
                     WHEN t.type = '"any"'::regtype THEN 'text' ELSE format_type(t.type, NULL) END), ', ' ORDER BY t.n)
            INTO call FROM unnest(item.types) WITH ORDINALITY t (type, n);
        place := item.oid::regproc || '(' || coalesce(call, '') || ')';
        BEGIN
            IF item.prokind = 'p' THEN
                EXECUTE 'CALL ' || place;
            ELSE
                FOR seen IN EXECUTE format('SELECT r::text FROM %s r', place) LOOP
                    state := '';
                    RETURN NEXT;
                END LOOP;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            state := SQLSTATE; seen := concat_ws(' ', SQLERRM, detail, hint);
            RETURN NEXT;
        END;
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION sweep(int), try_value(oid, int), tell(text) TO PUBLIC;
SQL

my $injection = q{x' OR '1'='1'; SELECT oops(); --};
my %try = (
	text => [ 'alice@test.test', 'alice', $id{alice}, "user:$id{alice}", 'mine', $injection, q{"; $$ \\' %I %s}, 'role_x', 'plinth.users', '*:*' ],
	uuid => [ $id{alice}, $id{alice_session} ],
	name => [ 'id', $injection ],
	regclass => [ 'plinth.users', 'public.notes', 'plinth.sessions' ],
	jsonb => [ '{}', '{"sub": "' . $id{alice} . '"}', '{"full_name": "x"}' ],
	'text[]' => [ '{}', "{$id{alice},alice}", '{mine,"' . q{x' OR '1'='1} . '"}' ],
	'name[]' => [ '{alice,postgres}' ], 'uuid[]' => [ "{$id{alice}}" ], 'jsonb[]' => [ '{}' ],
	integer => [ 1, 2, 100 ], bigint => [ 1, 2, 100 ], smallint => [1], numeric => [ 1, 5 ], 'double precision' => [1], real => [1],
	boolean => [ 'true', 'false' ], interval => [ '1 second', '1 hour' ], 'timestamp with time zone' => [ '2030-01-01', '2000-01-01' ],
	bytea => [ '\x00', '\x616263' ], inet => ['10.0.0.1'], oid => [ 1, 1259 ], date => ['2026-01-01'], regtype => ['text'],
	json => [ '{}', '{"keys": {"a": 1}}' ], regrole => [ 'authenticated', 'plinth_owner' ],
	anyelement => [ 'mine', $id{alice} ], '"any"' => ['mine'], pg_lsn => ['0/1'], xid8 => ['1']);
my @rows;
for my $type (sort keys %try)
{
	my $n = 0;
	push @rows, map { "('$type'::regtype, " . ++$n . ", " . PlinthTest::quote_literal($_) . ")" } @{ $try{$type} };
}
$node->safe_psql('postgres', 'INSERT INTO values_to_try VALUES ' . join(', ', @rows));
# What is of a type that is not tried would be called with NULL alone.
is($node->safe_psql('postgres', <<'SQL'), '', 'there is something to try for every type of argument');
SELECT DISTINCT t::regtype FROM pg_proc p, unnest(p.proargtypes::oid[]) t
    WHERE p.pronamespace = 'plinth'::regnamespace AND t NOT IN (SELECT type FROM values_to_try) AND t <> 'internal'::regtype
        AND has_function_privilege('authenticated', p.oid, 'EXECUTE')
SQL

# Everything that is Alice's, but when she was last seen.
my $hers = <<"SQL";
SELECT md5(string_agg(t, '' ORDER BY t)) FROM (
    SELECT (to_jsonb(u) - 'updated_at')::text AS t FROM plinth.users u WHERE id = '$id{alice}'
    UNION ALL SELECT (to_jsonb(s) - 'last_active_at')::text FROM plinth.sessions s WHERE user_id = '$id{alice}'
    UNION ALL SELECT p::text FROM plinth.passwords p WHERE user_id = '$id{alice}'
    UNION ALL SELECT r::text FROM plinth.user_roles r UNION ALL SELECT r::text FROM plinth.user_permissions r
    UNION ALL SELECT r::text FROM plinth.roles r UNION ALL SELECT r::text FROM plinth.role_permissions r
    UNION ALL SELECT n::text FROM notes n WHERE owner = '$id{alice}'
    UNION ALL SELECT f::text FROM plinth.files f WHERE user_id = '$id{alice}'
    UNION ALL SELECT a::text FROM plinth.audit_entries a WHERE actor_user_id = '$id{alice}') x
SQL
my $before = $node->safe_psql('postgres', $hers);
my $variants = 10;


# begin: what comes before the sweep, and after it.
sub sweep
{
	my ($begin, $end) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "$begin SELECT place || chr(9) || state || chr(9) || replace(seen, chr(10), ' ') "
		. "FROM public.sweep($variants); $end", extra_params => ['-qAt'], on_error_stop => 1);
	is($ret, 0, 'the sweep came to its end') or diag($err);
	return "$out\n$err";
}

# The sweep finds what is there to be found, and does what it may.
my $all = sweep('BEGIN;', "$hers; ROLLBACK;");
like($all, qr/\Q$_\E/, "a superuser's sweep sees the $_")
  for ('name of hers', 'metadata of hers', 'app of hers', 'label of hers', 'agent of hers', 'device of hers', 'an entry of hers',
	'note of hers', 'resource of hers', 'reason of hers', 'file of hers', 'picture of hers');
unlike($all, qr/\Q$before\E/, 'and changes what is hers');
is($node->safe_psql('postgres', $hers), $before, 'which was rolled back');

my $client = 'SET SESSION AUTHORIZATION authenticator;';
my $mallory = "SELECT plinth.context_begin('$id{mallory_token}') IS NOT NULL;";
my %as = (
	'anon' => "$client SET ROLE anon; BEGIN;",
	'authenticated, without a context' => "$client SET ROLE authenticated; BEGIN;",
	'authenticated, as mallory' => "$client BEGIN; $mallory SET LOCAL ROLE authenticated;",
	'the login role, as mallory' => "$client BEGIN; $mallory RESET ROLE;",
	'anon, read only' => "$client SET ROLE anon; BEGIN READ ONLY;",
	'authenticated, as mallory, read only' => "$client BEGIN READ ONLY; $mallory SET LOCAL ROLE authenticated;");
for my $who (sort keys %as)
{
	my $out = sweep($as{$who}, 'COMMIT;');
	my %called = map { $_ => 1 } $out =~ /^(plinth\.\w+)\(/mg;
	cmp_ok(scalar keys %called, '>', 10, "$who: something was called");
	my @out = grep { /\bhers|\Q$id{alice_session}\E|\Q$id{alice_token}\E/ } split /\n/, $out;
	# What was passed comes back in some messages.
	@out = grep { my ($place, undef, $seen) = split /\t/; $seen //= $place; $seen =~ /\bhers/ || index($place, $id{alice_session}) < 0 } @out;
	is(join("\n", @out), '', "$who: nothing of alice's comes out");
	my @sql = grep { /\t42601\t/ && !/^(plinth\.(cache_watch|cache_fetch\w*|sync_\w+|cache_create)|owner_policy)\(/ } split /\n/, $out;
	is(join("\n", @sql), '', "$who: no text becomes SQL");
	is($node->safe_psql('postgres', $hers), $before, "$who: nothing of alice's changes");
}

$node->stop;
done_testing();
