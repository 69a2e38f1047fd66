/*
 * event_key.c
 *		Enabling audit events, and the key that tells them from what anybody
 *		else writes into the WAL.
 *
 * Everybody may write logical messages, under any prefix (EXECUTE on
 * pg_logical_emit_message is PUBLIC's), and whoever may read the WAL may copy
 * one.  So an event carries a keyed hash.  Its key is derived from a random
 * value of 256 bits in plinth.audit_event_keys, which only plinth_owner reads,
 * under the root key when one was configured as that value was made, for this
 * cluster, this database and this slot's generation: a message that was copied
 * from another database, a restored copy or before the slot was lost does not
 * fit.
 *
 * The decoder makes the value once the slot is ready and events are enabled
 * (both committed), and commits it before a session can have it.  Hence a
 * session that finds the key knows that what it writes will be decoded, and
 * that the decoder will have the same key.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "audit/internal.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "decode/decode.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "worker/worker.h"

#define KEY_PURPOSE "plinth audit event"

PGDLLEXPORT Datum plinth_audit_event_enable(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_audit_event_disable(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_audit_event_ready(PG_FUNCTION_ARGS);

/* What a key is derived from; no padding. */
typedef struct KeyMaterial
{
	uint8 secret[PLINTH_HASH_BYTES];
	uint64 system_identifier;
	uint64 slot_generation;
	uint64 database;
} KeyMaterial;

static void
derive(const uint8 *secret, bool rooted, uint64 slot_generation, PlinthAuditKey *key)
{
	KeyMaterial material;

	memcpy(material.secret, secret, sizeof(material.secret));
	material.system_identifier = GetSystemIdentifier();
	material.slot_generation = slot_generation;
	material.database = MyDatabaseId;
	if (rooted)
		plinth_crypto_keyed_hash(KEY_PURPOSE, &material, sizeof(material), key->bytes);
	else
		plinth_crypto_mac(material.secret, &material, sizeof(material), key->bytes);
	plinth_crypto_wipe(&material, sizeof(material));
}

/* Runs a statement as plinth_owner; how many rows it met. */
static uint64
execute(PlinthPlan *plan, Datum *values)
{
	PlinthAsOwner owner;
	uint64 processed;

	plinth_base_owner_begin(&owner);
	SPI_connect();
	plinth_base_spi_execute(plan, values, NULL, false, 0);
	processed = SPI_processed;
	SPI_finish();
	plinth_base_owner_end(&owner);
	return processed;
}

bool
plinth_audit_events_enabled(void)
{
	static PlinthPlan plan = {.sql = "SELECT FROM plinth.audit_event_settings"};
	PlinthAsOwner owner;
	bool enabled;

	plinth_base_owner_begin(&owner);
	SPI_connect();
	plinth_base_spi_select_latest(&plan, NULL);
	enabled = SPI_processed > 0;
	SPI_finish();
	plinth_base_owner_end(&owner);
	return enabled;
}

PlinthAuditKeyState
plinth_audit_key_read(PlinthAuditKey *key)
{
	static PlinthPlan plan = {
		.sql = "SELECT secret, rooted FROM plinth.audit_event_keys"
			   " WHERE slot_generation OPERATOR(pg_catalog.=) $1",
		.nargs = 1,
		.argtypes = {INT8OID},
	};
	PlinthAuditKeyState state = PLINTH_AUDIT_KEY_NO_SLOT;
	PlinthAsOwner owner;
	uint64 generation;
	Datum values[1];

	if (!plinth_audit_events_enabled())
		return PLINTH_AUDIT_KEY_OFF;
	generation = plinth_decode_slot_ready();
	if (generation == 0)
		return PLINTH_AUDIT_KEY_NO_SLOT;

	values[0] = Int64GetDatum((int64) generation);
	plinth_base_owner_begin(&owner);
	SPI_connect();
	plinth_base_spi_select_latest(&plan, values);
	if (SPI_processed == 1)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		bytea *secret = DatumGetByteaPP(SPI_getbinval(row, desc, 1, &isnull));
		bool rooted = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));

		state = PLINTH_AUDIT_KEY_NO_ROOT;
		if (!rooted || plinth_crypto_has_root_key())
		{
			derive((const uint8 *) VARDATA_ANY(secret), rooted, generation, key);
			state = PLINTH_AUDIT_KEY_READY;
		}
	}
	SPI_finish();
	plinth_base_owner_end(&owner);
	return state;
}

void
plinth_audit_key_make(void)
{
	static PlinthPlan plan = {
		.sql = "INSERT INTO plinth.audit_event_keys AS k (slot_generation, rooted, secret)"
			   " VALUES ($1, $2, $3) ON CONFLICT (singleton) DO UPDATE"
			   " SET slot_generation = excluded.slot_generation, rooted = excluded.rooted,"
			   " secret = excluded.secret WHERE k.slot_generation <> excluded.slot_generation",
		.nargs = 3,
		.argtypes = {INT8OID, BOOLOID, BYTEAOID},
	};
	bytea *secret = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	uint64 generation = plinth_decode_slot_ready();
	Datum values[3];

	if (generation == 0)
		return;
	SET_VARSIZE(secret, VARHDRSZ + PLINTH_HASH_BYTES);
	plinth_crypto_random(VARDATA(secret), PLINTH_HASH_BYTES);
	values[0] = Int64GetDatum((int64) generation);
	values[1] = BoolGetDatum(plinth_crypto_has_root_key());
	values[2] = PointerGetDatum(secret);
	/* Sessions look for it when the generation moves. */
	if (execute(&plan, values) > 0)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	plinth_crypto_wipe(VARDATA(secret), PLINTH_HASH_BYTES);
	pfree(secret);
}

PG_FUNCTION_INFO_V1(plinth_audit_event_enable);
Datum
plinth_audit_event_enable(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		.sql = "INSERT INTO plinth.audit_event_settings DEFAULT VALUES ON CONFLICT DO NOTHING"};
	PlinthDecodeStatus status;

	PreventCommandIfReadOnly("plinth.audit_event_enable()");
	plinth_decode_require();
	plinth_decode_status(MyDatabaseId, &status);
	if (status.pid == 0)
		plinth_worker_require(1);
	if (execute(&plan, NULL) > 0)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(plinth_audit_event_disable);
Datum
plinth_audit_event_disable(PG_FUNCTION_ARGS)
{
	static PlinthPlan settings = {.sql = "DELETE FROM plinth.audit_event_settings"};
	static PlinthPlan keys = {.sql = "DELETE FROM plinth.audit_event_keys"};

	PreventCommandIfReadOnly("plinth.audit_event_disable()");
	(void) execute(&keys, NULL);
	if (execute(&settings, NULL) > 0)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(plinth_audit_event_ready);
Datum
plinth_audit_event_ready(PG_FUNCTION_ARGS)
{
	PlinthAuditKey key;
	bool ready = plinth_audit_key_read(&key) == PLINTH_AUDIT_KEY_READY;

	plinth_crypto_wipe(&key, sizeof(key));
	PG_RETURN_BOOL(ready);
}
