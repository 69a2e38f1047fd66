# Sessions against a model: clients revoke, delete, revive, ban, change roles by
# hand and by the functions, roll back, use savepoints, and verify, all at
# random and at once, with memory for a part of the sessions only.  The model
# changes in the transactions that change the sessions, and its numbers only
# grow: where they are the same before and after an answer, the answer must be
# exactly what the model says.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until);
use Test::More;

my $rounds = $ENV{PLINTH_LONG} ? 20000 : 1500;
# Commits take a while, so that there is something between their two halves.
my $node = node('model', fsync => 'on', conf => <<'CONF');
plinth.session_memory = '128kB'
plinth.session_flush_interval = '200ms'
commit_delay = 500
commit_siblings = 0
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE people (u int PRIMARY KEY, id uuid, active boolean, role text, extra boolean, n bigint);
CREATE TABLE model (s int PRIMARY KEY, u int REFERENCES people, id uuid, token text, alive boolean, n bigint);
CREATE TABLE wrong (at timestamptz DEFAULT clock_timestamp(), what text);
CREATE TABLE tally (what text, n bigint);
SELECT plinth.role_create('extra', '');
INSERT INTO plinth.users (username) SELECT 'user' || i FROM generate_series(1, 60) i;
INSERT INTO people SELECT substr(username, 5)::int, id, true, role, false, 0 FROM plinth.users;
INSERT INTO model SELECT s, 1 + s % 60, NULL, 'pls_' || plinth.base64url_encode(plinth.random_bytes(32)), true, 0
	FROM generate_series(1, 900) s;
INSERT INTO plinth.sessions (user_id, token_hash, expires_at, idle_timeout)
	SELECT p.id, plinth._blake2b(plinth.base64url_decode(substr(token, 5))), now() + interval '1 day', '1 hour'
	FROM model m JOIN people p USING (u);
UPDATE model SET id = s.id FROM plinth.sessions s
	WHERE s.token_hash = plinth._blake2b(plinth.base64url_decode(substr(token, 5)));

-- One change of the tables and of the model; by hand as often as not.
CREATE PROCEDURE change(s_ int, u_ int) LANGUAGE plpgsql AS $$
DECLARE
	session_ uuid;
	alive_ boolean;
	user_ uuid;
BEGIN
	IF random() < 0.5 THEN
		UPDATE model SET alive = NOT alive, n = n + 1 WHERE s = s_ RETURNING id, alive INTO session_, alive_;
		IF alive_ THEN
			UPDATE plinth.sessions SET revoked_at = NULL, revoked_reason = NULL WHERE id = session_;
		ELSIF random() < 0.5 THEN
			PERFORM plinth.session_revoke(session_);
		ELSE
			UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'by hand' WHERE id = session_;
		END IF;
		RETURN;
	END IF;
	SELECT id INTO user_ FROM people WHERE u = u_;
	CASE floor(random() * 3)
		WHEN 0 THEN
			UPDATE people SET active = NOT active, n = n + 1 WHERE u = u_ RETURNING active INTO alive_;
			UPDATE plinth.users SET status = CASE WHEN alive_ THEN 'active' ELSE 'banned' END WHERE id = user_;
		WHEN 1 THEN
			UPDATE people SET n = n + 1, role = 'role' || n + 1 WHERE u = u_;
			UPDATE plinth.users SET role = p.role FROM people p WHERE p.u = u_ AND users.id = user_;
		ELSE
			UPDATE people SET extra = NOT extra, n = n + 1 WHERE u = u_ RETURNING extra INTO alive_;
			IF alive_ THEN
				INSERT INTO plinth.user_roles (user_id, role) VALUES (user_, 'extra');
			ELSE
				DELETE FROM plinth.user_roles WHERE user_id = user_ AND role = 'extra';
			END IF;
	END CASE;
END $$;

CREATE FUNCTION state(s_ int) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT concat_ws(' ', m.n, p.n, m.alive AND p.active, CASE WHEN m.alive AND p.active THEN p.role END)
	FROM model m JOIN people p USING (u) WHERE s = s_
$$;

CREATE FUNCTION look(s_ int, own boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	before text := state(s_);
	answer record;
	after text;
BEGIN
	SELECT v.* INTO answer FROM model m, plinth.session_verify(m.token) v WHERE m.s = s_;
	after := state(s_);
	-- In READ COMMITTED each of the three sees what has committed by then.
	IF before = after AND NOT after ~ concat(CASE WHEN answer.user_id IS NOT NULL THEN ' t ' || answer.role ELSE ' f' END, '$') THEN
		INSERT INTO wrong (what) VALUES (format('session %s: %s, but model %s, own %s', s_, answer, after, own));
	END IF;
END $$;

CREATE PROCEDURE play(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	s_ int;
	u_ int;
	same bigint := 0;
BEGIN
	FOR i IN 1 .. rounds LOOP
		-- Most of them about few, so that they meet.
		s_ := 1 + floor(random() ^ 8 * 900);
		SELECT u INTO u_ FROM model WHERE s = s_;
		IF random() < 0.15 THEN
			IF random() < 0.3 THEN
				BEGIN
					CALL change(s_, u_);
					PERFORM look(s_, true);
					RAISE division_by_zero;
				EXCEPTION WHEN division_by_zero THEN
					PERFORM look(s_, true);
				END;
			END IF;
			CALL change(s_, u_);
			PERFORM look(s_, true);
			IF random() < 0.2 THEN
				ROLLBACK;
			ELSE
				COMMIT;
			END IF;
		END IF;
		PERFORM look(s_, false);
		COMMIT;
	END LOOP;
END $$;
SQL

ok(wait_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_workers WHERE service = 'session'") eq '1' }), 'the worker is there');
my @clients = map {
	my ($out, $err) = ('', '');
	{ out => \$out, err => \$err,
		run => IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', 'ON_ERROR_STOP=1', '-c', "CALL play($rounds)" ],
			'<', '/dev/null', '>', \$out, '2>', \$err) }
} 1 .. 8;
foreach my $client (@clients)
{
	$client->{run}->finish;
	${ $client->{err} } =~ s/^.*deadlock.*$//gms;
	is(${ $client->{err} }, '', 'a client');
}
is($node->safe_psql('postgres', 'SELECT what FROM wrong ORDER BY at LIMIT 5'), '', 'every answer was right');
is($node->safe_psql('postgres', 'SELECT with_roles = role_references, in_flux FROM plinth._session_check()'), 't|0', 'the memory adds up, and nothing is left in flux');
my ($entries, $capacity, $hits, $misses, $evictions) =
  split /\|/, $node->safe_psql('postgres', 'SELECT entries, capacity, hits, misses, evictions FROM plinth.stat_sessions');
cmp_ok($hits, '>', 100, 'memory answered');
cmp_ok($misses, '>', 1000, 'and the tables');
cmp_ok($evictions, '>', 0, 'sessions made room');
cmp_ok($capacity, '<', 900, 'there was not room for all');
note("entries $entries of $capacity, hits $hits, misses $misses, evictions $evictions");
ok(wait_until(sub { $node->safe_psql('postgres', 'SELECT plinth.session_flush(); SELECT unwritten FROM plinth.stat_sessions') =~ /\n0$/ }), 'and what was in use is written');
is($node->safe_psql('postgres', 'SELECT count(*) FROM plinth.sessions WHERE last_active_at > clock_timestamp()'), 0, 'never later than it was');
$node->stop;
done_testing();
