# Boards with threads, replies and votes: a document of five tables, whose
# furthest rows are three hops from the root.
package DocumentTest;
use strict;
use warnings;

my $query = <<'SQL';
SELECT b.id, b.title,
       (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'id', t.id, 'title', t.title,
                   'replies', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                                          'id', r.id, 'body', r.body, 'author', a.name,
                                          'votes', (SELECT coalesce(pg_catalog.sum(v.value), 0) FROM public.votes v
                                                     WHERE v.reply_id = r.id)) ORDER BY r.id), '[]')
                                 FROM public.replies r LEFT JOIN public.authors a ON a.id = r.author_id
                                WHERE r.thread_id = t.id)) ORDER BY t.id), '[]')
          FROM public.threads t WHERE t.board_id = b.id) AS threads,
       1 / (CASE b.title WHEN 'zero' THEN 0 ELSE 1 END) AS one
  FROM public.boards b
  JOIN pg_catalog.generate_series(1, 2) AS g (n) ON g.n = 1 OR b.title = 'twice'
 WHERE b.title <> 'hidden'
SQL

sub schema
{
	return <<'SQL';
CREATE TABLE boards (id int PRIMARY KEY, title text NOT NULL);
CREATE TABLE threads (id int PRIMARY KEY, board_id int NOT NULL, title text);
CREATE TABLE authors (id int PRIMARY KEY, name text);
CREATE TABLE replies (id int PRIMARY KEY, thread_id int NOT NULL, author_id int, body text);
CREATE TABLE votes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, reply_id int, value int);
CREATE INDEX ON threads (board_id);
CREATE INDEX ON replies (thread_id);
CREATE INDEX ON replies (author_id);
CREATE INDEX ON votes (reply_id);
ALTER TABLE threads REPLICA IDENTITY FULL;
ALTER TABLE replies REPLICA IDENTITY FULL;
ALTER TABLE votes REPLICA IDENTITY FULL;
INSERT INTO boards SELECT g, 'board ' || g FROM generate_series(1, 4) g;
INSERT INTO threads SELECT g, 1 + g % 4, 'thread ' || g FROM generate_series(1, 12) g;
INSERT INTO authors SELECT g, 'author ' || g FROM generate_series(1, 3) g;
INSERT INTO replies SELECT g, 1 + g % 12, 1 + g % 3, 'reply ' || g FROM generate_series(1, 60) g;
INSERT INTO votes (reply_id, value) SELECT 1 + g % 60, g % 5 - 2 FROM generate_series(1, 200) g;
SQL
}

# The mapping.
sub mapping
{
	my ($name, $more) = @_;
	return "SELECT plinth.sync_document('$name', 'docs', '$name', 'boards', \$query\$$query\$query\$" . ($more || '') . ')';
}

# What the collection must hold: a JSON object a row.
sub expected
{
	return "SELECT jsonb_build_object('_id', q.id) || (to_jsonb(q) - 'id') FROM ($query) AS q";
}

1;
