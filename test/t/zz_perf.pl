use strict; use warnings;
use PlinthTest; use Test::More; use Time::HiRes qw(time);
my $node = PlinthTest::node('main');
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');
$node->safe_psql('postgres', q{
create table t(id bigint primary key, thread_id int, content text, created_at timestamptz default now());
insert into t select i, i%10, 'content of reply '||i, '2026-01-01' from generate_series(1,200000) i;
select plinth.sync_table('t','docs', field_names=>'camelCase');
});
my $t=time;
diag $node->safe_psql('postgres', "select plinth.sync_wait('100s')"),"snapshot ", 200000/(time-$t);
$t=time;
$node->safe_psql('postgres', "insert into t select i, i%10, 'content of reply '||i, '2026-01-01' from generate_series(200001,300000) i;"); diag "ins ",time-$t;
diag $node->safe_psql('postgres', "select plinth.sync_wait('100s')"),"bulk stream ", 100000/(time-$t);
open my $f,'>','/tmp/pgb.sql'; print $f "\\set id random(1,200000)\nupdate t set thread_id=thread_id+1 where id=:id;\n"; close $f;
$t=time;
system("pgbench -n -h ".$node->host." -p ".$node->port." -c 4 -T 8 -f /tmp/pgb.sql postgres 2>&1 | grep tps 1>&2");
my $t2=time; diag $node->safe_psql('postgres', "select plinth.sync_wait('100s'); select documents_replaced from plinth.stat_sync"),"drain ", time-$t2;
my @lag; for my $i (1..30) { $t=time; $node->safe_psql('postgres',"update t set thread_id=0 where id=$i; select plinth.sync_wait('5s')"); push @lag, time-$t; select undef,undef,undef,0.05; }
@lag = sort {$a<=>$b} @lag; diag "wait roundtrip p50 $lag[15] max $lag[29]";
my $b=time; $node->safe_psql('postgres','select 1') for 1..10; diag "psql base ", (time-$b)/10;
ok(1); done_testing;
