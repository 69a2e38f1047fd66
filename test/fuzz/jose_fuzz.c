/* sources: src/session/jose.c src/session/jose_evp.c src/base/base64url.c */
/* libs: -lsodium -lcrypto */
/* seconds: 60 */
/*
 * jose_fuzz.c
 *		Tokens, signatures, JWKs and private keys from strangers: nothing
 *		crashes, nothing verifies that was not signed, and what is taken for a
 *		key can be written and read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "session/jose.h"
#include "session/jose_int.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static PlinthJoseKey *keys[4];

static void
make_keys(void)
{
	if (sodium_init() < 0)
		abort();
	for (int alg = PLINTH_JOSE_HS256; alg <= PLINTH_JOSE_RS256; alg++)
		keys[alg] = plinth_jose_key_generate((PlinthJoseAlg) alg);
}

/* A token: no part reaches beyond it, and no key ever signed it. */
static void
try_token(const uint8_t *data, size_t size)
{
	const char *token = (const char *) data;
	PlinthJoseParts parts;
	uint8_t signature[PLINTH_JOSE_MAX_TOKEN];
	long len;

	if (!plinth_jose_split(token, size, &parts))
		return;
	if (parts.header != token ||
		parts.header_len + parts.payload_len + parts.signature_len + 2 != size)
		abort();
	len = plinth_base64url_decode(parts.signature, parts.signature_len, signature);
	for (int alg = 0; alg < 4 && len >= 0; alg++)
	{
		if (plinth_jose_verify(keys[alg], token, parts.signed_len, signature, (size_t) len))
			abort();
	}
}

/* A signature as it is, of any length. */
static void
try_signature(const uint8_t *data, size_t size)
{
	for (int alg = 0; alg < 4; alg++)
	{
		if (plinth_jose_verify(keys[alg], "fuzz", 4, data, size))
			abort();
	}
}

/* Takes a string up to a zero byte. */
static void
take(const uint8_t **data, size_t *size, char *out, size_t out_size)
{
	size_t len = strnlen((const char *) *data, *size);
	size_t copied = len < out_size ? len : out_size - 1;

	memcpy(out, *data, copied);
	out[copied] = '\0';
	*data += len < *size ? len + 1 : len;
	*size -= len < *size ? len + 1 : len;
}

static void
try_jwk(const uint8_t *data, size_t size)
{
	static const char *const kinds[][2] = {{"RSA", ""}, {"EC", "P-256"}, {"OKP", "Ed25519"}};
	PlinthJwk jwk;
	PlinthJwk again;
	PlinthJoseKey *key;
	char thumbprint[PLINTH_JOSE_THUMBPRINT_SIZE];

	if (size == 0)
		return;
	memset(&jwk, 0, sizeof(jwk));
	strcpy(jwk.kty, kinds[data[0] % 3][0]);
	strcpy(jwk.crv, kinds[data[0] % 3][1]);
	data++;
	size--;
	take(&data, &size, jwk.e, sizeof(jwk.e));
	take(&data, &size, jwk.y, sizeof(jwk.y));
	take(&data, &size, jwk.x, sizeof(jwk.x));
	take(&data, &size, jwk.n, sizeof(jwk.n));
	key = plinth_jose_key_from_jwk(&jwk);
	if (key == NULL)
		return;
	if (!plinth_jose_thumbprint(&jwk, thumbprint) || !plinth_jose_key_public(key, &again))
		abort();
	/* Each key has one form only. */
	if (strcmp(jwk.kty, "RSA") == 0 ? strcmp(jwk.n, again.n) != 0 || strcmp(jwk.e, again.e) != 0
									: strcmp(jwk.x, again.x) != 0)
		abort();
	if (plinth_jose_verify(key, "fuzz", 4, data, size))
		abort();
	plinth_jose_key_free(key);
}

static void
try_private(const uint8_t *data, size_t size)
{
	uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE];
	PlinthJoseAlg alg;
	PlinthJoseKey *key;

	if (size == 0)
		return;
	alg = (PlinthJoseAlg) (data[0] % 4);
	key = data[0] & 4 ? plinth_jose_key_from_file(alg, data + 1, size - 1)
					  : plinth_jose_key_from_private(alg, data + 1, size - 1);
	if (key != NULL)
		(void) plinth_jose_sign(key, "fuzz", 4, signature);
	plinth_jose_key_free(key);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (keys[0] == NULL)
		make_keys();
	if (size == 0)
		return 0;
	switch (data[0] % 4)
	{
		case 0:
			try_token(data + 1, size - 1);
			break;
		case 1:
			try_signature(data + 1, size - 1);
			break;
		case 2:
			try_jwk(data + 1, size - 1);
			break;
		default:
			try_private(data + 1, size - 1);
	}
	return 0;
}
