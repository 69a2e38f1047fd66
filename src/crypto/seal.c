/*
 * seal.c
 *		What is kept sealed: XChaCha20-Poly1305 under a key of the root key's.
 *
 * An envelope is a byte that tells its version, a random nonce of 24 bytes,
 * and the text with its tag.  Version and context are authenticated with it,
 * so an envelope opens only in the place that it was made for.
 */
#include "postgres.h"

#include <sodium.h>

#include "crypto/crypto.h"
#include "crypto/internal.h"

#define VERSION 1
#define NONCE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG crypto_aead_xchacha20poly1305_ietf_ABYTES

StaticAssertDecl(PLINTH_SEAL_OVERHEAD == 1 + NONCE + TAG, "size of an envelope");
StaticAssertDecl(PLINTH_HASH_BYTES == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "size of a key");

/* What is authenticated beside the text: version and context. */
static uint8 *
associated_data(uint8 version, const char *context, size_t *len)
{
	uint8 *data = palloc(1 + strlen(context));

	data[0] = version;
	memcpy(data + 1, context, strlen(context));
	*len = 1 + strlen(context);
	return data;
}

void
plinth_crypto_seal(const char *purpose, const char *context, const void *src, size_t len,
				   uint8 *envelope)
{
	uint8 key[PLINTH_HASH_BYTES];
	size_t data_len;
	uint8 *data = associated_data(VERSION, context, &data_len);

	plinth_crypto_derive_key(purpose, key);
	envelope[0] = VERSION;
	randombytes_buf(envelope + 1, NONCE);
	crypto_aead_xchacha20poly1305_ietf_encrypt(envelope + 1 + NONCE, NULL, src, len, data, data_len,
											   NULL, envelope + 1, key);
	sodium_memzero(key, sizeof(key));
	pfree(data);
}

bool
plinth_crypto_open(const char *purpose, const char *context, const uint8 *envelope, size_t len,
				   void *dst)
{
	uint8 key[PLINTH_HASH_BYTES];
	size_t data_len;
	uint8 *data;
	bool good;

	if (len < PLINTH_SEAL_OVERHEAD || envelope[0] != VERSION)
		return false;
	plinth_crypto_derive_key(purpose, key);
	data = associated_data(envelope[0], context, &data_len);
	good = crypto_aead_xchacha20poly1305_ietf_decrypt(dst, NULL, NULL, envelope + 1 + NONCE,
													  len - 1 - NONCE, data, data_len, envelope + 1,
													  key) == 0;
	sodium_memzero(key, sizeof(key));
	pfree(data);
	return good;
}
