
=pod

=head1 NAME

PlinthTest - clusters with plinth, a MongoDB and a proxy for TAP tests

=head1 SYNOPSIS

  use PlinthTest;
  use Test::More;

  my $node  = PlinthTest::node('main', conf => "plinth.sync_timeout = '2s'");
  my $mongo = PlinthTest::mongo_start();
  my $proxy = PlinthTest::proxy_start($mongo);
  PlinthTest::sync_server($node, 'docs', $proxy->uri, 'forum');
  $node->safe_psql('postgres', 'SELECT plinth.sync_table(...)');
  $proxy->cut;
  ok(PlinthTest::wait_until(sub { $mongo->count('forum', 'replies') == 3 }));
  is_deeply($mongo->docs('forum', 'replies'), [...]);
  done_testing();

C<node> returns a started PostgreSQL::Test::Cluster, whose methods (safe_psql,
psql, background_psql, stop, restart, kill9, backup, ...) are the way to use it.

=cut

package PlinthTest;

use strict;
use warnings;

use Exporter 'import';
use IO::Handle;
use IPC::Open2 ();
use IPC::Run;
use JSON::PP;
use PlinthServers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(node mongo_start proxy_start sync_server wait_until
  mongo_docs mongo_eval psql_ok psql_fails_like equal_ok within_ok);

# Seconds that what must happen may take on the slowest machine.
our $patience = $PostgreSQL::Test::Utils::timeout_default;

$ENV{PGCTLTIMEOUT} ||= $patience;
my %known_settings;
my %comparer;

# node(name, option => value...): a started cluster that has plinth.
#	conf       more lines for postgresql.conf (they win)
#	extension  0: do not CREATE EXTENSION in database postgres
#	root_key   1: with a root key, in root.key of the cluster's folder
#	start      0: only initdb and configuration (implies extension => 0)
#	fsync      'on' to keep PostgreSQL's durability (default 'off': a crash
#	           of PostgreSQL loses nothing by it, one of the machine would)
#	init       hash of further parameters for PostgreSQL::Test::Cluster->init
sub node
{
	my ($name, %opts) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 'logical', %{ $opts{init} || {} });
	configure($node, %opts);
	return $node if defined $opts{start} && !$opts{start};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION plinth')
	  unless defined $opts{extension} && !$opts{extension};
	return $node;
}

# Writes plinth's configuration into a cluster that was made in another way.
sub configure
{
	my ($node, %opts) = @_;
	my $fsync = $opts{fsync} || 'off';
	my $library_setting =
	  knows_setting('output_plugin_libraries')
	  ? "output_plugin_libraries = 'plinth'"
	  : '';

	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'plinth'
wal_level = logical
$library_setting
max_connections = 100
max_worker_processes = 32
max_wal_senders = 10
max_replication_slots = 10
max_prepared_transactions = 10
shared_buffers = 32MB
max_wal_size = 1GB
fsync = $fsync
restart_after_crash = on
log_statement = none
log_min_messages = info
log_line_prefix = '%m [%p] %q%a %b '
CONF
	if ($opts{root_key})
	{
		my $file = $node->basedir . '/root.key';
		append_to_file($file, unpack('H*', join '', map { chr int rand 256 } 1 .. 32) . "\n") unless -e $file;
		chmod 0600, $file;
		$node->append_conf('postgresql.conf', "plinth.root_key_file = '$file'");
	}
	$node->append_conf('postgresql.conf', $opts{conf}) if defined $opts{conf};
	return;
}

# Whether this PostgreSQL has a setting.
sub knows_setting
{
	my ($setting) = @_;
	if (!%known_settings)
	{
		%known_settings = map { (split /\t/)[0] => 1 } `postgres --describe-config`;
		die "postgres --describe-config said nothing" unless %known_settings;
	}
	return exists $known_settings{$setting};
}

# CREATE SERVER for a MongoDB, and a user mapping for everybody.  Credentials
# in the uri (as MONGODB_URI may have them) go to the mapping.  dbname: in
# which database, mapping: its OPTIONS (...) clause; the rest are more options
# of the server.
sub sync_server
{
	my ($node, $server, $uri, $database, %opts) = @_;
	my $dbname  = delete $opts{dbname}  || 'postgres';
	my $mapping = delete $opts{mapping} || '';

	if ($uri =~ s{^(mongodb(?:\+srv)?://)([^@/]*)@}{$1})
	{
		my ($user, $password) = map { s/%([0-9A-Fa-f]{2})/chr(hex($1))/egr } split /:/, $2, 2;
		$mapping ||= 'OPTIONS (username ' . quote_literal($user) . ', password ' . quote_literal($password // '') . ')';
	}
	my $options = join ', ',
	  map { "$_ " . quote_literal($opts{$_}) } sort keys %opts;
	$options = ", $options" if $options ne '';
	$node->safe_psql($dbname,
		"CREATE SERVER $server FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri "
		  . quote_literal($uri) . ', database ' . quote_literal($database) . "$options);"
		  . "CREATE USER MAPPING FOR PUBLIC SERVER $server $mapping");
	return;
}

# Starts a cluster whose postmaster was killed -9, as soon as the processes it
# left have seen that; false when they never do.
sub start_again
{
	my ($node) = @_;
	return wait_until(
		sub {
			$node->{_pid} = undef;
			return $node->start(fail_ok => 1);
		});
}

# What a query returns, or undef when it fails, takes longer than a minute, or
# nobody answers.  Not by the node's psql, which dies when it cannot hand a
# statement to a psql that has found no server and ended.
sub ask
{
	my ($node, $dbname, $sql) = @_;
	my ($out, $err) = ('', '');
	my $ok = eval {
		IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr($dbname), '-c', $sql ],
			'<', '/dev/null', '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	};
	chomp $out;
	return $ok ? $out : undef;
}

# Whether a server answers.
sub answers
{
	my ($node) = @_;
	return (ask($node, 'postgres', 'SELECT 1') // '') eq '1';
}

# Waits until a server of which a process (its pid) was killed -9 has begun anew.
# That it answers says little: it may until it notices.
sub begun_anew
{
	my ($node, $pid) = @_;
	return wait_until(sub { (ask($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") // '') eq '0' });
}

# Waits until all that was written so far is delivered, fenced, and behind the
# slot of a database: a fault that comes now finds nothing half done.
sub settled
{
	my ($node, $dbname) = @_;
	$dbname ||= 'postgres';
	my $lsn = $node->safe_psql($dbname, 'SELECT pg_current_wal_insert_lsn()');
	return wait_until(
		sub {
			$node->safe_psql($dbname,
				"SELECT count(*) FROM pg_replication_slots WHERE database = '$dbname'"
				  . " AND slot_name LIKE 'plinth_%' AND confirmed_flush_lsn >= '$lsn'") == 1;
		}) || die "the slot of $dbname does not move on to $lsn";
}

sub quote_literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Calls a sub until it returns true; its value, or 0 after timeout seconds.
# Without a timeout it is patient, which is right wherever the time that
# something takes is not what is tested.
sub wait_until
{
	my ($condition, $timeout) = @_;
	my $end = time() + ($timeout || $patience);
	while (1)
	{
		my $value = $condition->();
		return $value if $value;
		return 0 if time() > $end;
		sleep 0.05;
	}
}

# How many times slower than usual processes start here and now, 1 at least.
sub slowness
{
	my $start = time();
	system('psql --version >/dev/null') for 1 .. 5;
	my $times = (time() - $start) / 0.1;
	return $times > 1 ? $times : 1;
}

# As a test: a sub ends within limit seconds, more on a machine that is slow or
# busy.  Its value.
sub within_ok
{
	my ($limit, $name, $sub) = @_;
	my $slowness = slowness();
	my $start = time();
	my $result = $sub->();
	my $took = time() - $start;
	my $after = $took < $limit ? 1 : slowness();
	$slowness = $after if $after > $slowness;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($took, '<', $limit * $slowness, sprintf('%s (%.1f s)', $name, $took));
	return $result;
}

# Runs SQL that must succeed, as a test.
sub psql_ok
{
	my ($node, $dbname, $sql, $name, %opts) = @_;
	my ($rc, $out, $err) = $node->psql($dbname, $sql, on_error_stop => 1, %opts);
	ok($rc == 0, $name) or diag($err);
	return $out;
}

# Runs SQL that must fail with a message, as a test.
sub psql_fails_like
{
	my ($node, $dbname, $sql, $pattern, $name, %opts) = @_;
	my ($rc, $out, $err) = $node->psql($dbname, $sql, on_error_stop => 1, %opts);
	isnt($rc, 0, "$name: fails");
	like($err, $pattern, "$name: says why");
	return;
}

# Documents of a collection as canonical extended JSON, one string a document,
# sorted; read by PyMongo.
sub mongo_docs
{
	my ($uri, $db, $coll) = @_;
	return mongo_eval($uri,
		"[dumps(d) for d in client[" . py($db) . "][" . py($coll) . "].find()]",
		sort => 1);
}

# The value of a Python expression (or of the variable "result" after Python
# statements, with statements => 1) in which client is a MongoClient, dumps
# writes canonical extended JSON, and bson, pymongo and datetime are imported.
sub mongo_eval
{
	my ($uri, $code, %opts) = @_;
	my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
	my $script = <<'PY';
import sys, json, datetime, bson, pymongo
from bson import json_util, codec_options, binary, Int64, ObjectId, Decimal128, SON
from bson.json_util import CANONICAL_JSON_OPTIONS
uri, mode, code = sys.argv[1:4]
defaults = {} if 'serverSelectionTimeoutMS' in uri else {'serverSelectionTimeoutMS': 60000}
client = pymongo.MongoClient(uri, uuidRepresentation='unspecified', **defaults)
def dumps(doc):
    return json_util.dumps(doc, json_options=CANONICAL_JSON_OPTIONS)
scope = dict(globals())
if mode == 'statements':
    exec(code, scope)
    value = scope.get('result')
else:
    value = eval(code, scope)
print(json.dumps(value, default=str))
PY
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[
			$python, '-c', $script, $uri,
			$opts{statements} ? 'statements' : 'expression', $code
		],
		'>', \$out, '2>', \$err) or die "python: $err";
	my $value = JSON::PP->new->utf8(0)->allow_nonref->decode($out);
	$value = [ sort @$value ] if $opts{sort};
	return $value;
}

# Differences between what a query returns (a JSON object a row, which has _id)
# and a collection, read by PyMongo: a list of at most ten strings, empty when
# both sides are equal.  Documents are compared as plain JSON: Int64 is a number,
# Date its ISO text in UTC with milliseconds, Decimal128 and ObjectId their text,
# binary its hexadecimal digits.
sub differences
{
	my ($node, $dbname, $sql, $mongo, $db, $coll) = @_;
	comparer();
	$node->safe_psql($dbname, $sql, extra_params => [ '-o', $comparer{rows} ]);
	print { $comparer{in} } JSON::PP->new->ascii->encode({
		uri => ref $mongo ? $mongo->client_uri : $mongo,
		db => $db, coll => $coll, rows => $comparer{rows} }) . "\n";
	my $answer = readline $comparer{out};
	die 'the comparing client ended' unless defined $answer;
	return @{ JSON::PP->new->ascii->decode($answer) };
}

# As mongo_eval with an expression whose value is plain JSON, but by a Python that
# runs already.
sub value
{
	my ($mongo, $expression) = @_;
	comparer();
	print { $comparer{in} } JSON::PP->new->ascii->encode({
		uri => ref $mongo ? $mongo->client_uri : $mongo, value => $expression }) . "\n";
	my $answer = readline $comparer{out};
	die 'the comparing client ended' unless defined $answer;
	return JSON::PP->new->ascii->allow_nonref->decode($answer);
}

# A Python that compares, started once: loading PyMongo takes its time.
sub comparer
{
	return if %comparer && $comparer{owner} == $$;
	my $python = $ENV{PLINTH_PYTHON} || '/usr/bin/python3';
	my $script = <<'PY';
import sys, json, datetime, bson, pymongo
def plain(v):
    if isinstance(v, dict):
        return {k: plain(x) for k, x in v.items()}
    if isinstance(v, list):
        return [plain(x) for x in v]
    if v is None or isinstance(v, (bool, int, float, str)):
        return v
    if isinstance(v, datetime.datetime):
        return v.strftime('%Y-%m-%dT%H:%M:%S.') + '%03d' % (v.microsecond // 1000)
    if isinstance(v, bytes):
        return v.hex()
    return str(v)
def text(d):
    return json.dumps(d, sort_keys=True)
clients = {}
for line in sys.stdin:
    ask = json.loads(line)
    uri = ask['uri']
    if uri not in clients:
        clients[uri] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=60000)
    if 'value' in ask:
        print(json.dumps(eval(ask['value'], {'client': clients[uri]})), flush=True)
        continue
    want, out = {}, []
    for row in open(ask['rows'], encoding='utf-8', newline='\n'):
        if row.strip():
            d = json.loads(row)
            i = text(d['_id'])
            if i in want:
                out.append('two rows with the _id ' + i)
            want[i] = text(d)
    for d in clients[uri][ask['db']][ask['coll']].find(batch_size=1000):
        d = plain(d)
        i = text(d['_id'])
        expected = want.pop(i, None)
        if expected is None:
            out.append('extra: ' + text(d))
        elif expected != text(d):
            out.append('different: ' + expected + ' in MongoDB: ' + text(d))
    out += ['missing: ' + d for d in want.values()]
    print(json.dumps([o[:500] for o in out[:10]]), flush=True)
PY
	$comparer{pid} = IPC::Open2::open2($comparer{out}, $comparer{in}, $python, '-c', $script);
	$comparer{owner} = $$;
	$comparer{rows}  = PostgreSQL::Test::Utils::tempdir() . '/rows';
	$comparer{in}->autoflush(1);
	return;
}

# As a test: both sides become equal (with timeout 0: they are now).  A row of $sql is a JSON object: see differences.
sub equal_ok
{
	my ($node, $dbname, $sql, $mongo, $db, $coll, $name, $timeout) = @_;
	my @differences;
	my $end = time() + (defined $timeout ? $timeout : $patience);
	while (1)
	{
		@differences = differences($node, $dbname, $sql, $mongo, $db, $coll);
		last if !@differences || time() > $end;
		sleep 0.1;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!@differences, $name) || !diag(join "\n", @differences);
}

# A Python literal.
sub py
{
	my ($text) = @_;
	return JSON::PP->new->ascii->allow_nonref->encode("$text");
}

# A MongoDB: MONGODB_URI, else a mongod on PATH, else the embedded server.
#	h2    file name: the embedded server keeps its data there
#	tls   1: the embedded server speaks TLS, with a certificate for localhost
#	      signed by the CA in ->ca_file
#	port  a port (default: a free one)
sub mongo_start
{
	my (%opts) = @_;
	my $wants_embedded = $opts{h2} || $opts{tls} || $opts{embedded};

	if ($ENV{MONGODB_URI} && !$wants_embedded)
	{
		return bless { uri => $ENV{MONGODB_URI}, external => 1 }, 'PlinthTest::Mongo';
	}
	my @args;
	push @args, '--h2', $opts{h2} if $opts{h2};
	my $self = bless {
		args => \@args,
		port => $opts{port} || 0,
		embedded => $wants_embedded,
		tls => $opts{tls} }, 'PlinthTest::Mongo';
	$self->_certificates if $opts{tls};
	$self->start;
	return $self;
}

# A proxy in front of a MongoDB (an object of mongo_start, or "host:port").
sub proxy_start
{
	my ($target, %opts) = @_;
	$target = $target->address if ref $target;
	my $self = bless { target => $target, port => $opts{port} || 0 }, 'PlinthTest::Proxy';
	$self->start;
	return $self;
}

1;
