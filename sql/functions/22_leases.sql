-- limits: concurrency leases.

CREATE OR REPLACE FUNCTION plinth.lease_acquire(name text, key text, max_count integer, ttl interval DEFAULT NULL,
        bound_to text DEFAULT 'session') RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_lease_acquire';
COMMENT ON FUNCTION plinth.lease_acquire(text, text, integer, interval, text) IS
'Takes one of at most so many leases of a name and key, and never waits.
name (1 to 200 bytes), key (1 to 1024 bytes): what is held, and for whom. max_count: how many may be held at a time, 1 to 1,000,000. ttl: after which time it comes back by itself; NULL for never. bound_to: what else ends it: "session" (this connection ends), "commit" (that, or this transaction or savepoint rolls back), "transaction" (the transaction or savepoint ends, either way), "none" (only ttl, which is then needed).
Returns the lease''s id for lease_release and lease_renew, or NULL when all are taken. At once, whatever becomes of the transaction unless bound to it; works in read-only transactions, and on a standby, each server for itself. Behind a pooler that shares connections use "transaction" or "none".
Errors: 22004 for NULL, 22023 for what is out of range, 53400 when plinth.limits_memory is full.';

CREATE OR REPLACE FUNCTION plinth.lease_release(id uuid) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_lease_release';
COMMENT ON FUNCTION plinth.lease_release(uuid) IS
'Gives a lease back, from any connection to this database.
id: as lease_acquire returned it. Returns false when it has ended before. At once, whatever becomes of the transaction.';

CREATE OR REPLACE FUNCTION plinth.lease_renew(id uuid, ttl interval) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_limits_lease_renew';
COMMENT ON FUNCTION plinth.lease_renew(uuid, interval) IS
'Lets a lease last for ttl from now on, shorter or longer than before.
id: as lease_acquire returned it. Returns false when it has ended: somebody else may hold it then. Errors: 22004, 22023 for a ttl that is NULL or out of range.';

CREATE OR REPLACE FUNCTION plinth._lease_stat(OUT name text, OUT key text, OUT held bigint, OUT first_expires_in interval)
        RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'plinth_limits_lease_stat';

CREATE OR REPLACE VIEW plinth.stat_leases AS SELECT s.name, s.key, s.held, s.first_expires_in FROM plinth._lease_stat() AS s;
ALTER VIEW plinth.stat_leases OWNER TO plinth_owner;
COMMENT ON VIEW plinth.stat_leases IS
'How many leases of each name and key are held on this server: both as far as 63 bytes, and when the first comes back by itself.';

REVOKE ALL ON FUNCTION plinth.lease_acquire(text, text, integer, interval, text), plinth.lease_release(uuid),
    plinth.lease_renew(uuid, interval), plinth._lease_stat() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.lease_acquire(text, text, integer, interval, text), plinth.lease_release(uuid),
    plinth.lease_renew(uuid, interval) TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._lease_stat() TO plinth_owner, plinth_admin, pg_monitor;
GRANT SELECT ON plinth.stat_leases TO plinth_admin, pg_monitor;
