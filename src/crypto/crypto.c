/*
 * crypto.c
 *		Randomness, hashing and comparison, all by libsodium.
 */
#include "postgres.h"

#include <sodium.h>

#include "base/base.h"
#include "common/cryptohash.h"
#include "crypto/crypto.h"
#include "crypto/internal.h"

StaticAssertDecl(PLINTH_HASH_BYTES >= crypto_generichash_BYTES_MIN &&
					 PLINTH_HASH_BYTES <= crypto_generichash_BYTES_MAX,
				 "BLAKE2b has no hash of this size");

void
plinth_crypto_random(void *dst, size_t len)
{
	randombytes_buf(dst, len);
}

void
plinth_crypto_hash(const void *src, size_t len, uint8 out[PLINTH_HASH_BYTES])
{
	crypto_generichash(out, PLINTH_HASH_BYTES, src, len, NULL, 0);
}

void
plinth_crypto_keyed_hash(const char *purpose, const void *src, size_t len,
						 uint8 out[PLINTH_HASH_BYTES])
{
	uint8 key[PLINTH_HASH_BYTES];

	plinth_crypto_derive_key(purpose, key);
	crypto_generichash(out, PLINTH_HASH_BYTES, src, len, key, sizeof(key));
	sodium_memzero(key, sizeof(key));
}

void
plinth_crypto_mac(const uint8 key[PLINTH_HASH_BYTES], const void *src, size_t len,
				  uint8 out[PLINTH_HASH_BYTES])
{
	crypto_generichash(out, PLINTH_HASH_BYTES, src, len, key, PLINTH_HASH_BYTES);
}

void
plinth_crypto_sha1(const void *src, size_t len, uint8 out[PLINTH_SHA1_BYTES])
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA1);

	if (hash == NULL || pg_cryptohash_init(hash) < 0 || pg_cryptohash_update(hash, src, len) < 0 ||
		pg_cryptohash_final(hash, out, PLINTH_SHA1_BYTES) < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a SHA-1")));
	pg_cryptohash_free(hash);
}

uint32
plinth_crypto_random_below(uint32 below)
{
	return randombytes_uniform(below);
}

bool
plinth_crypto_equal(const void *a, const void *b, size_t len)
{
	return sodium_memcmp(a, b, len) == 0;
}

void
plinth_crypto_wipe(void *ptr, size_t len)
{
	sodium_memzero(ptr, len);
}

void
plinth_crypto_init(void)
{
	if (sodium_init() < 0)
		ereport(FATAL, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not initialize libsodium")));
	plinth_crypto_root_key_load();
	plinth_crypto_password_init();
	plinth_base_secret_function("secret_hash");
	plinth_base_secret_function("secret_verify");
}
