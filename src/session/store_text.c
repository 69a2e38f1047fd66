/*
 * store_text.c
 *		Roles and tiers of the sessions in shared memory: each list once.
 *
 * A text is in a table of fixed size, with a count of the entries that have
 * it; it does not change while there is one.  Whoever may read an entry may
 * read its text.  Everything else is for who holds the lock of texts, which is
 * taken last and held for short.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "session/store.h"

static uint32 *
bucket_of(uint32 hash)
{
	uint32 *buckets = plinth_session_at(plinth_session_store->text_buckets);

	return &buckets[hash & (plinth_session_store->ntexts - 1)];
}

void
plinth_session_texts_init(void)
{
	plinth_session_store->free_text = PLINTH_SESSION_NONE;
	plinth_session_store->fresh_text = 0;
	for (uint32 i = 0; i < plinth_session_store->ntexts; i++)
		*bucket_of(i) = PLINTH_SESSION_NONE;
}

static uint32
find_text(const char *text, uint16 len, uint32 hash)
{
	uint32 number = *bucket_of(hash);

	while (number != PLINTH_SESSION_NONE)
	{
		const PlinthSessionText *candidate = plinth_session_text(number);

		if (candidate->hash == hash && candidate->len == len &&
			memcmp(candidate->text, text, len) == 0)
			return number;
		number = candidate->next;
	}
	return PLINTH_SESSION_NONE;
}

static uint32
add_text(const char *text, uint16 len, uint16 roles, uint32 hash)
{
	PlinthSessionStore *store = plinth_session_store;
	uint32 number = store->free_text;
	PlinthSessionText *added;

	if (number != PLINTH_SESSION_NONE)
		store->free_text = plinth_session_text(number)->next;
	else if (store->fresh_text < store->ntexts)
		number = store->fresh_text++;
	else
		return PLINTH_SESSION_NONE;

	added = plinth_session_text(number);
	added->refs = 0;
	added->hash = hash;
	added->len = len;
	added->roles = roles;
	memcpy(added->text, text, len);
	added->next = *bucket_of(hash);
	*bucket_of(hash) = number;
	return number;
}

uint32
plinth_session_text_take(const PlinthSession *session)
{
	char text[PLINTH_SESSION_TEXT];
	Size role = strlen(session->role) + 1;
	Size tier = strlen(session->tier) + 1;
	Size roles = strlen(session->roles) + 1;
	uint32 number;
	uint32 hash;

	if (role + tier + roles > PLINTH_SESSION_TEXT)
		return PLINTH_SESSION_NONE;
	memcpy(text, session->role, role);
	memcpy(text + role, session->tier, tier);
	memcpy(text + role + tier, session->roles, roles);
	hash = hash_bytes((unsigned char *) text, role + tier + roles);

	LWLockAcquire(plinth_session_text_lock(), LW_EXCLUSIVE);
	number = find_text(text, role + tier + roles, hash);
	if (number == PLINTH_SESSION_NONE)
		number = add_text(text, role + tier + roles, role + tier, hash);
	if (number != PLINTH_SESSION_NONE)
		plinth_session_text(number)->refs++;
	LWLockRelease(plinth_session_text_lock());
	return number;
}

void
plinth_session_text_release(uint32 number)
{
	PlinthSessionText *text;
	uint32 *link;

	if (number == PLINTH_SESSION_NONE)
		return;
	LWLockAcquire(plinth_session_text_lock(), LW_EXCLUSIVE);
	text = plinth_session_text(number);
	if (--text->refs == 0)
	{
		for (link = bucket_of(text->hash); *link != number;
			 link = &plinth_session_text(*link)->next)
			;
		*link = text->next;
		text->next = plinth_session_store->free_text;
		plinth_session_store->free_text = number;
	}
	LWLockRelease(plinth_session_text_lock());
}
