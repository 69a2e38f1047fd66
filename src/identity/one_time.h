/*
 * one_time.h
 *		Tokens that are good for one use; private to room identity.
 */
#ifndef PLINTH_IDENTITY_ONE_TIME_H
#define PLINTH_IDENTITY_ONE_TIME_H

#include "base/base.h"
#include "crypto/crypto.h"

#define PLINTH_CODE_DIGITS 6

/* What is stored of a token, and of the message that carries it. */
typedef struct PlinthOneTime
{
	pg_uuid_t token_id;
	pg_uuid_t message_id;
	bytea *hash;
	bytea *envelope;
} PlinthOneTime;

/* Makes a token, or a code of six digits; ERRORs without a root key. */
extern void plinth_identity_one_time_make(bool code, PlinthOneTime *made);

/* What a token that somebody brings is known by; false when it has not the form of one. */
extern bool plinth_identity_one_time_hash(text *token, Datum *hash);

/* As above for a code, which is known together with its id only. */
extern bytea *plinth_identity_code_hash(const pg_uuid_t *id, const char *code);

/*
 * Runs a plan as plinth_owner whose one value is the id of a user; false for
 * NULL.  No SPI connection of the caller's.
 */
extern bool plinth_identity_one_time_run(PlinthPlan *plan, Datum *values, pg_uuid_t *user_id);

#endif /* PLINTH_IDENTITY_ONE_TIME_H */
