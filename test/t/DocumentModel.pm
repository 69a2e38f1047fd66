# Random small schemas, random queries of documents over them, and random
# writes: the same for the same seed.
#
#	my $model = DocumentModel->new($seed);
#	$model->schema              SQL that makes tables m0, m1, ... in the current schema, with rows
#	my ($root, $query) = $model->query;
#	$model->write               one statement
#	$model->keys($root)         the names of a table's key columns
#	$model->ids($root, $query)  SQL for what a collection must hold: a JSON object a row
#	DocumentModel::harness()    SQL of the schema "model": model.try() holds the ways of a query against writes
#	$model->watched             SQL that lets it see the writes
#
# Links between tables are foreign keys that cascade, or plain columns, so that
# rows on either side come, go and are renamed in any order.
package DocumentModel;

use strict;
use warnings;

sub new
{
	my ($class, $seed) = @_;
	my $self = bless { aliases => 0 }, $class;
	srand($seed);
	my $n = 3 + int rand 3;
	for my $i (0 .. $n - 1)
	{
		my $kind = pick('int', 'int', 'int', 'text', 'pair', 'parts');
		push @{ $self->{tables} }, { name => "m$i", kind => $kind, keys => $kind eq 'pair' ? [ 'a', 'b' ] : ['id'], links => [] };
	}
	for my $table (@{ $self->{tables} })
	{
		for my $l (1 .. 1 + int rand 2)
		{
			my $to = pick(@{ $self->{tables} });
			my @columns = map { "f${l}_$_" } @{ $to->{keys} };
			push @{ $table->{links} }, { to => $to, columns => \@columns, key => @columns == 1 && chance(0.4) };
		}
	}
	return $self;
}

sub pick { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }

sub keys { my ($self, $name) = @_; return @{ (grep { $_->{name} eq $name } @{ $self->{tables} })[0]{keys} }; }

# A value for a key column of a table: few, so that they meet.
sub key_value
{
	my ($table) = @_;
	return $table->{kind} eq 'text' ? "'k" . int(rand 7) . "'" : $table->{kind} eq 'pair' ? int rand 3 : int rand 7;
}

# A value for a column that refers to a table: of a foreign key one that is there, or NULL.
sub link_value
{
	my ($link) = @_;
	return 'NULL' if chance(0.15);
	my $value = key_value($link->{to});
	return $link->{key} ? "(SELECT id FROM $link->{to}{name} WHERE id >= $value ORDER BY id LIMIT 1)" : $value;
}

sub columns
{
	my ($table) = @_;
	my $type = $table->{kind} eq 'text' ? 'text' : 'int';
	my @columns = map { "$_ $type" } @{ $table->{keys} };
	for my $link (@{ $table->{links} })
	{
		my $to = $link->{to}{kind} eq 'text' ? 'text' : 'int';
		push @columns, map { "$_ $to" } @{ $link->{columns} };
	}
	return (@columns, 'v int', 's text');
}

sub row
{
	my ($table) = @_;
	my @values = map { key_value($table) } @{ $table->{keys} };
	for my $link (@{ $table->{links} })
	{
		push @values, map { link_value($link) } @{ $link->{columns} };
	}
	return '(' . join(', ', @values, int rand 5, "'s" . int(rand 9) . "'") . ')';
}

sub schema
{
	my ($self) = @_;
	my $sql = '';
	for my $table (@{ $self->{tables} })
	{
		my $name = $table->{name};
		my @parts = $table->{kind} eq 'parts' ? map { "${name}_$_" } 0, 1 : ();
		$sql .= "CREATE TABLE $name (" . join(', ', columns($table), 'PRIMARY KEY (' . join(', ', @{ $table->{keys} }) . ')') . ')'
		  . (@parts ? " PARTITION BY HASH (id)" : '') . ";\n";
		$sql .= "CREATE TABLE $parts[$_] PARTITION OF $name FOR VALUES WITH (MODULUS 2, REMAINDER $_);\n" for 0 .. $#parts;
		$sql .= "ALTER TABLE $_ REPLICA IDENTITY FULL;\n" for @parts ? @parts : $name;
	}
	for my $table (@{ $self->{tables} }, @{ $self->{tables} })
	{
		$sql .= "INSERT INTO $table->{name} VALUES " . join(', ', map { row($table) } 1 .. 6) . " ON CONFLICT DO NOTHING;\n";
	}
	for my $table (@{ $self->{tables} })
	{
		$sql .= "ALTER TABLE $table->{name} ADD FOREIGN KEY ($_->{columns}[0]) REFERENCES $_->{to}{name} ON UPDATE CASCADE ON DELETE " . pick('CASCADE', 'SET NULL') . ";\n"
		  for grep { $_->{key} } @{ $table->{links} };
	}
	# A view that hides where its columns come from.
	my $table = $self->{tables}[0];
	my $all = join ', ', map { (split / /)[0] } columns($table);
	$sql .= "CREATE VIEW mv AS SELECT $all FROM $table->{name} WHERE v <> 4;\n";
	return $sql;
}

# ---- queries ---------------------------------------------------------------

sub alias { my ($self) = @_; return 'x' . ++$self->{aliases}; }

sub equal
{
	my ($a, $acolumns, $b, $bcolumns) = @_;
	return join ' AND ', map { chance(0.5) ? "$a.$acolumns->[$_] = $b.$bcolumns->[$_]" : "$b.$bcolumns->[$_] = $a.$acolumns->[$_]" } 0 .. $#$acolumns;
}

# A table's name, or that of a view of it.
sub name_of { my ($self, $table) = @_; return $table == $self->{tables}[0] && chance(0.2) ? 'mv' : $table->{name}; }

# Tables that refer to $table, or are equal by value: [table, columns there, columns of $table].
sub referring
{
	my ($self, $table) = @_;
	my @found;
	for my $other (@{ $self->{tables} })
	{
		push @found, map { [ $other, $_->{columns}, $table->{keys} ] } grep { $_->{to} == $table } @{ $other->{links} };
	}
	push @found, [ pick(@{ $self->{tables} }), ['v'], ['v'] ] if !@found || chance(0.15);
	push @found, [ pick(@{ $self->{tables} }), ['s'], ['s'] ] if chance(0.05);
	return pick(@found);
}

sub order { my ($alias, $table) = @_; return join ', ', map { "$alias.$_" } @{ $table->{keys} }; }

sub filter
{
	my ($self, $alias, $table, $depth) = @_;
	my $x = rand;
	return "$alias.v <> " . int(rand 5) if $x < 0.4;
	return "$alias.s < 's6'" if $x < 0.5;
	return ($x < 0.65 ? 'NOT ' : '') . 'EXISTS ' . $self->subselect($alias, $table, 'SELECT 1') if $x < 0.8;
	my ($other, $there, $here) = @{ $self->referring($table) };
	my $b = $self->alias;
	return '(' . join(', ', map { "$alias.$_" } @$here) . ') ' . ($x > 0.97 ? 'NOT ' : '') . 'IN (SELECT '
	  . join(', ', map { "$b.$_" } @$there) . ' FROM ' . $self->name_of($other) . " $b WHERE $b.v < 4)";
}

# Inner or outer joins to rows that $alias refers to; pushes [alias, table].
sub joins
{
	my ($self, $alias, $table, $more) = @_;
	my $sql = '';
	for my $link (@{ $table->{links} })
	{
		next unless chance(0.4);
		my $b = $self->alias;
		my $to = $link->{to};
		my $joined = $self->name_of($to) . " $b";
		my $on = equal($b, $to->{keys}, $alias, $link->{columns});
		push @$more, [ $b, $to ];
		if (chance(0.2))
		{
			# What is optional is a join itself.
			my $next = pick(@{ $to->{links} });
			my $c = $self->alias;
			push @$more, [ $c, $next->{to} ];
			$joined = "($joined " . pick('JOIN', 'LEFT JOIN') . " $next->{to}{name} $c ON " . equal($c, $next->{to}{keys}, $b, $next->{columns}) . ')';
			$on .= " AND $c.v < 4" if chance(0.3);
		}
		$on .= " AND $b.v > 0" if chance(0.2);
		$on .= ' AND EXISTS ' . $self->subselect($b, $to, 'SELECT 1', 1) if chance(0.05);
		$sql .= ' ' . pick('JOIN', 'LEFT JOIN', 'LEFT JOIN', 'LEFT JOIN', chance(0.1) ? 'FULL JOIN' : 'JOIN') . " $joined ON $on";
	}
	return $sql;
}

# (… FROM rows that refer to a row of $alias, and more WHERE …)
sub subselect
{
	my ($self, $alias, $table, $what, $plain) = @_;
	my ($other, $there, $here) = @{ $self->referring($table) };
	my $b = $self->alias;
	my @more;
	my $joins = $plain ? '' : $self->joins($b, $other, \@more);
	my $where = equal($b, $there, $alias, $here);
	if (!$plain && chance(0.15))
	{
		# As a list, and the condition in WHERE.
		my $link = pick(@{ $other->{links} });
		my $c = $self->alias;
		push @more, [ $c, $link->{to} ];
		$joins .= ", $link->{to}{name} $c";
		$where .= ' AND ' . equal($c, $link->{to}{keys}, $b, $link->{columns});
	}
	$where .= ' OR ' . "$b.v = 0" if chance(0.02);
	$where .= ' AND ' . $self->filter($b, $other) if chance(0.25);
	$what = $what->($b, $other, \@more) if ref $what;
	return "($what FROM " . $self->name_of($other) . " $b$joins WHERE $where)";
}

sub object
{
	my ($self, $alias, $table, $more, $depth) = @_;
	my @parts = map { ("'$_'", "$alias.$_") } @{ $table->{keys} }, 'v', 's';
	push @parts, "'$_->[0]'", "$_->[0]." . pick('v', 's') for @$more;
	push @parts, "'d'", $self->many($alias, $table, $depth - 1) if $depth > 0 && chance(0.6);
	return 'jsonb_build_object(' . join(', ', @parts) . ')';
}

# One value made of the rows that refer to a row of $alias.
sub many
{
	my ($self, $alias, $table, $depth) = @_;
	my $x = rand;
	return $self->subselect($alias, $table, 'SELECT count(*)') if $x < 0.15;
	if ($x < 0.55)
	{
		return $self->subselect($alias, $table, sub {
			my ($b, $other, $more) = @_;
			return 'SELECT jsonb_agg(' . $self->object($b, $other, $more, $depth) . ' ORDER BY ' . order($b, $other) . ')';
		});
	}
	if ($x < 0.7)
	{
		my $order;
		my $rows = $self->subselect($alias, $table, sub {
			my ($b, $other, $more) = @_;
			$order = "$b.v, " . order($b, $other);
			return 'SELECT ' . $self->object($b, $other, $more, $depth) . " AS o, row_number() OVER (ORDER BY $order) AS n";
		});
		$rows =~ s/\)\z/ ORDER BY $order LIMIT 2)/;
		return "(SELECT jsonb_agg(q.o ORDER BY q.n) FROM $rows q)";
	}
	if ($x < 0.82)
	{
		my @rows = map { substr $self->subselect($alias, $table, sub { return "SELECT $_[0].s AS o" }), 1, -1 } 1, 2;
		return '(SELECT jsonb_agg(u.o ORDER BY u.o) FROM (' . join(pick(' UNION ALL ', ' UNION ', ' EXCEPT '), @rows) . ') u)';
	}
	my ($other, $there, $here) = @{ $self->referring($table) };
	my ($b, $c) = ($self->alias, $self->alias);
	my $columns = join ', ', map { "$b.$_" } @$there;
	my $having = chance(0.3) ? ' HAVING count(*) > 1' : '';
	return "(SELECT sum($c.n)::int FROM (SELECT $columns, count(*) AS n FROM " . $self->name_of($other) . " $b GROUP BY $columns$having) $c WHERE "
	  . equal($c, $there, $alias, $here) . ')';
}

# A subquery of its own, joined by what it is grouped, partitioned or made distinct by.
sub derived
{
	my ($self, $alias, $table) = @_;
	my ($other, $there, $here) = @{ $self->referring($table) };
	my ($b, $c) = ($self->alias, $self->alias);
	my @by = map { "$b.$_" } @$there;
	my $by = join ', ', @by;
	my $order = "$b.v, " . order($b, $other);
	my @more;
	my $from = $self->name_of($other) . " $b" . $self->joins($b, $other, \@more);
	my $where = chance(0.3) ? ' WHERE ' . $self->filter($b, $other) : '';
	my $x = rand;
	my $sql =
	    $x < 0.3  ? "(SELECT $by, sum($b.v) AS n FROM $from$where GROUP BY $by)"
	  : $x < 0.5  ? "(SELECT $by, $b.v AS n, row_number() OVER (PARTITION BY $by ORDER BY $order) AS k FROM $from$where)"
	  : $x < 0.65 ? "(SELECT DISTINCT ON ($by) $by, $b.v AS n FROM $from$where ORDER BY $by, $order)"
	  : $x < 0.8  ? "(SELECT $by, count(*) AS n FROM (SELECT $by FROM $from$where UNION ALL SELECT $by FROM " . $self->name_of($other) . " $b) $b GROUP BY $by)"
	  # These look at rows of other roots, and are refused.
	  : $x < 0.87 ? "(SELECT $by, $b.v AS n FROM $from$where ORDER BY $order LIMIT 1)"
	  : $x < 0.94 ? "(SELECT $by, $b.v AS n, row_number() OVER (ORDER BY $order) AS k FROM $from$where)"
	  :             "(SELECT $by, q.n FROM (SELECT DISTINCT ON ($b.v) $by, $b.s AS n FROM $from$where ORDER BY $order) $b, LATERAL (SELECT $b.n) q ORDER BY q.n LIMIT 1)";
	my $on = equal($c, $there, $alias, $here) . ($sql =~ / AS k FROM/ ? " AND $c.k = 1" : '');
	return (" LEFT JOIN $sql $c ON $on", "$c.n");
}

# The root's name, and a query that has at most one row for each of its keys.
sub query
{
	my ($self) = @_;
	my $root = pick(@{ $self->{tables} });
	my $r = $self->alias;
	my @keys = map { "$r.$_" } @{ $root->{keys} };
	my $with = '';
	my @fields = ("$r.v AS v");
	my @more;
	my $from = "$root->{name} $r" . $self->joins($r, $root, \@more);
	my @where;
	for my $entry (@more)
	{
		push @fields, "$entry->[0].s AS $entry->[0]";
		push @fields, $self->many(@$entry, 1) . ' AS ' . $self->alias if chance(0.4);
	}
	if (chance(0.5))
	{
		my ($join, $field) = $self->derived(@{ pick([ $r, $root ], @more) });
		$from .= $join;
		push @fields, "$field AS n";
	}
	if (chance(0.2))
	{
		my ($other, $there, $here) = @{ $self->referring($root) };
		my ($b, $c) = ($self->alias, $self->alias);
		my $by = join ', ', map { "$b.$_" } @$there;
		$with = "WITH w AS (SELECT $by, max($b.s) AS m FROM $other->{name} $b GROUP BY $by) ";
		$from .= ' LEFT JOIN w ON ' . equal('w', $there, $r, $here);
		push @fields, 'w.m AS m';
		my ($more) = grep { $_->[1] == $root } @more;
		if ($more)
		{
			$from .= " LEFT JOIN w $c ON " . equal($c, $there, $more->[0], $here);
			push @fields, "$c.m AS $c";
		}
	}
	push @fields, $self->many($r, $root, 2) . ' AS ' . $self->alias for 1 .. int rand 3;
	push @fields, '(' . $self->filter($r, $root) . ') AS f' if chance(0.2);
	push @where, $self->filter($r, $root) if chance(0.4);
	if (chance(0.2))
	{
		# Children joined straight, and grouped by the root's key.
		my ($other, $there, $here) = @{ $self->referring($root) };
		my $b = $self->alias;
		my @inner;
		@fields = ("count($b.v) AS c", "jsonb_agg($b.s ORDER BY " . order($b, $other) . ') AS j');
		$from = "$root->{name} $r " . pick('JOIN', 'LEFT JOIN') . " $other->{name} $b ON " . equal($b, $there, $r, $here) . $self->joins($b, $other, \@inner);
		push @fields, "max($_->[0].s) AS $_->[0]" for @inner;
		$with = '';
		return ($root->{name}, 'SELECT ' . join(', ', @keys, @fields) . " FROM $from" . (@where ? ' WHERE ' . join(' AND ', @where) : '')
			  . ' GROUP BY ' . join(', ', @keys) . (chance(0.2) ? ' HAVING count(*) > 1' : ''));
	}
	return ($root->{name}, "${with}SELECT " . join(', ', @keys, @fields) . " FROM $from" . (@where ? ' WHERE ' . join(' AND ', @where) : ''));
}

# As PlinthTest::differences takes it.
sub ids
{
	my ($self, $root, $query) = @_;
	my @keys = $self->keys($root);
	my $id = @keys == 1 ? "q.$keys[0]" : 'jsonb_build_object(' . join(', ', map { "'$_', q.$_" } @keys) . ')';
	return "SELECT jsonb_build_object('_id', $id) || (to_jsonb(q)" . join('', map { " - '$_'" } @keys) . ") FROM ($query) AS q WHERE q.$keys[0] IS NOT NULL";
}

# ---- writes ----------------------------------------------------------------

sub write
{
	my ($self) = @_;
	my $table = pick(@{ $self->{tables} });
	my $name = $table->{name};
	my @keys = @{ $table->{keys} };
	my $here = join ' AND ', map { "$_ = " . key_value($table) } @keys;
	my $x = rand;
	return "INSERT INTO $name VALUES " . join(', ', map { row($table) } 1 .. 1 + int rand 3) . ' ON CONFLICT DO NOTHING' if $x < 0.3;
	return "DELETE FROM $name WHERE $here" if $x < 0.4;
	return "UPDATE $name SET v = " . int(rand 5) . ", s = 's" . int(rand 9) . "' WHERE $here" if $x < 0.5;
	return "UPDATE $name SET v = (v + 1) % 5 WHERE v = " . int rand 5 if $x < 0.58;
	if ($x < 0.85)
	{
		my $link = pick(@{ $table->{links} });
		return "UPDATE $name SET " . join(', ', map { "$_ = " . link_value($link) } @{ $link->{columns} }) . " WHERE $here";
	}
	my @new = map { key_value($table) } @keys;
	return "UPDATE $name SET " . join(', ', map { "$keys[$_] = $new[$_]" } 0 .. $#keys) . " WHERE $here AND NOT EXISTS (SELECT FROM $name WHERE "
	  . join(' AND ', map { "$keys[$_] = $new[$_]" } 0 .. $#keys) . ')';
}

# ---- the ways of a query, without an engine --------------------------------

sub watched
{
	my ($self) = @_;
	return join '', map { "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON $_->{name} FOR EACH ROW EXECUTE FUNCTION model.note('$_->{name}');\n" }
	  @{ $self->{tables} };
}

# One call of model.try.
sub trial
{
	my ($self, $root, $query, @writes) = @_;
	return "model.try('$root', ARRAY[" . join(', ', map { "'$_'" } $self->keys($root)) . "], \$q\$$query\$q\$, ARRAY["
	  . join(', ', map { "\$w\$$_\$w\$" } @writes) . '])';
}

sub harness
{
	return <<'SQL';
CREATE SCHEMA model;
CREATE TABLE model.log (relation regclass, old jsonb, new jsonb);
CREATE FUNCTION model.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO model.log VALUES (TG_ARGV[0]::regclass, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
		CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
	RETURN NULL;
END $$;

-- The documents by their keys, each an array of texts.
CREATE FUNCTION model.documents(keys text[], query text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
	n bigint;
BEGIN
	EXECUTE format('SELECT coalesce(jsonb_object_agg(jsonb_build_array(%s)::text, to_jsonb(q)), ''{}''), count(*) FROM (%s) AS q WHERE q.%I IS NOT NULL',
		(SELECT string_agg(format('q.%I::text', k), ', ') FROM unnest(keys) AS k), query, keys[1]) INTO result, n;
	IF n <> (SELECT count(*) FROM jsonb_object_keys(result)) THEN
		RAISE 'the model wrote a query with two rows for a key: %', query;
	END IF;
	RETURN result;
END $$;

-- The keys that the changes in the log mark, by the ways of the mapping and under this snapshot.
CREATE FUNCTION model.marks(mapping bigint, root regclass, keys text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	s record;
	row_ jsonb;
	roots text;
BEGIN
	FOR row_ IN SELECT unnest(ARRAY[l.old, l.new]) FROM model.log l WHERE l.relation = root LOOP
		CONTINUE WHEN row_ IS NULL;
		RETURN NEXT (SELECT jsonb_agg(row_ ->> k ORDER BY o) FROM unnest(keys) WITH ORDINALITY AS u (k, o));
	END LOOP;
	FOR s IN SELECT * FROM plinth.sync_sources AS v WHERE v.mapping_id = mapping LOOP
		FOR row_ IN SELECT DISTINCT jsonb_agg(i.image ->> c.name::text ORDER BY c.place)
			FROM model.log l, unnest(ARRAY[l.old, l.new]) WITH ORDINALITY AS i (image, k), unnest(s.columns) WITH ORDINALITY AS c (name, place)
			WHERE l.relation = s.relation AND i.image IS NOT NULL GROUP BY l.ctid, i.k
		LOOP
			CONTINUE WHEN row_ @> '[null]';
			IF s.roots IS NULL THEN
				RETURN NEXT row_;
				CONTINUE;
			END IF;
			roots := s.roots;
			FOR i IN REVERSE cardinality(s.columns) .. 1 LOOP
				roots := replace(roots, '$' || i, quote_literal(row_ ->> i - 1) || '::text');
			END LOOP;
			RETURN QUERY EXECUTE format('SELECT jsonb_build_array(%s)::text FROM (%s) AS r (%s)',
				(SELECT string_agg(format('r.k%s::text', i), ', ') FROM generate_series(1, cardinality(keys)) AS i), roots,
				(SELECT string_agg('k' || i, ', ') FROM generate_series(1, cardinality(keys)) AS i));
		END LOOP;
	END LOOP;
END $$;

-- Makes a mapping, runs the writes, and complains of documents that changed without a mark; undoes it all.
CREATE FUNCTION model.try(root text, keys text[], query text, writes text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	mapping bigint;
	before jsonb;
	after jsonb;
	w text;
	missed text;
BEGIN
	BEGIN
		mapping := plinth.sync_document('model', 'docs', 'model', root::regclass, query, snapshot => false);
	EXCEPTION WHEN invalid_parameter_value OR feature_not_supported THEN
		RETURN 'refused: ' || SQLERRM;
	END;
	BEGIN
		before := model.documents(keys, (SELECT m.query FROM plinth.sync_mappings m WHERE m.id = mapping));
		IF before <> model.documents(keys, query) THEN
			RAISE 'the query is kept as another one';
		END IF;
		FOREACH w IN ARRAY writes LOOP
			EXECUTE w;
		END LOOP;
		after := model.documents(keys, query);
		SELECT string_agg(format('%s was %s and is %s', k, before -> k, after -> k), E'\n') INTO missed
			FROM (SELECT jsonb_object_keys(before || after) AS k) AS u
			WHERE before -> k IS DISTINCT FROM after -> k AND k NOT IN (SELECT model.marks(mapping, root::regclass, keys));
		RAISE '%', CASE WHEN missed IS NOT NULL THEN 'missed: ' || missed WHEN before = after THEN 'same' ELSE 'ok' END USING ERRCODE = 'YY000';
	EXCEPTION WHEN SQLSTATE 'YY000' THEN
		PERFORM plinth.sync_drop('model');
		RETURN SQLERRM;
	END;
END $$;
SQL
}

1;
