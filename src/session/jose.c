/*
 * jose.c
 *		JWS: the parts of a token, the algorithms, HS256 and EdDSA.
 *
 * A key is for one algorithm, which stands in the key and not in the token:
 * no token can choose how it is verified.  HS256 and EdDSA are libsodium's;
 * ES256 and RS256 are OpenSSL's (jose_evp.c).
 */
#include "session/jose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/jose_int.h"

#define SEED_BYTES crypto_sign_ed25519_SEEDBYTES
#define ED25519_BYTES crypto_sign_ed25519_BYTES
#define HMAC_BYTES crypto_auth_hmacsha256_BYTES

static const char *const alg_names[] = {"HS256", "EdDSA", "ES256", "RS256"};

bool
plinth_jose_alg_parse(const char *name, PlinthJoseAlg *alg)
{
	for (int i = 0; i < 4; i++)
	{
		if (strcmp(name, alg_names[i]) == 0)
		{
			*alg = (PlinthJoseAlg) i;
			return true;
		}
	}
	return false;
}

const char *
plinth_jose_alg_name(PlinthJoseAlg alg)
{
	return alg_names[alg];
}

bool
plinth_jose_split(const char *token, size_t len, PlinthJoseParts *parts)
{
	const char *first;
	const char *second;
	const char *end = token + len;

	if (len == 0 || len > PLINTH_JOSE_MAX_TOKEN)
		return false;
	first = memchr(token, '.', len);
	if (first == NULL)
		return false;
	second = memchr(first + 1, '.', end - first - 1);
	if (second == NULL || memchr(second + 1, '.', end - second - 1) != NULL)
		return false;

	parts->header = token;
	parts->header_len = first - token;
	parts->payload = first + 1;
	parts->payload_len = second - first - 1;
	parts->signature = second + 1;
	parts->signature_len = end - second - 1;
	parts->signed_len = second - token;
	return parts->header_len > 0 && parts->payload_len > 0 && parts->signature_len > 0;
}

/* A member of exactly so many bytes. */
static bool
decode_exactly(const char *text, uint8_t *dst, size_t len)
{
	return strlen(text) == PLINTH_BASE64URL_LENGTH(len) &&
		   plinth_base64url_decode(text, strlen(text), dst) == (long) len;
}

bool
plinth_jose_jwk_alg(const PlinthJwk *jwk, PlinthJoseAlg *alg)
{
	if (strcmp(jwk->kty, "RSA") == 0)
		*alg = PLINTH_JOSE_RS256;
	else if (strcmp(jwk->kty, "EC") == 0 && strcmp(jwk->crv, "P-256") == 0)
		*alg = PLINTH_JOSE_ES256;
	else if (strcmp(jwk->kty, "OKP") == 0 && strcmp(jwk->crv, "Ed25519") == 0)
		*alg = PLINTH_JOSE_EDDSA;
	else
		return false;
	return true;
}

/* Whether a member can stand in JSON as it is. */
static bool
is_base64url(const char *text)
{
	return text[0] != '\0' &&
		   text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")] ==
			   '\0';
}

bool
plinth_jose_thumbprint(const PlinthJwk *jwk, char out[PLINTH_JOSE_THUMBPRINT_SIZE])
{
	char canonical[sizeof(PlinthJwk) + 64];
	uint8_t digest[crypto_hash_sha256_BYTES];
	PlinthJoseAlg alg;

	if (!plinth_jose_jwk_alg(jwk, &alg))
		return false;
	/* The required members in the order of their names, without white space. */
	if (alg == PLINTH_JOSE_RS256)
	{
		if (!is_base64url(jwk->n) || !is_base64url(jwk->e))
			return false;
		snprintf(canonical, sizeof(canonical), "{\"e\":\"%s\",\"kty\":\"RSA\",\"n\":\"%s\"}",
				 jwk->e, jwk->n);
	}
	else
	{
		bool has_y = alg == PLINTH_JOSE_ES256;

		if (!is_base64url(jwk->x) || (has_y && !is_base64url(jwk->y)))
			return false;
		snprintf(canonical, sizeof(canonical), "{\"crv\":\"%s\",\"kty\":\"%s\",\"x\":\"%s\"%s%s%s}",
				 jwk->crv, jwk->kty, jwk->x, has_y ? ",\"y\":\"" : "", has_y ? jwk->y : "",
				 has_y ? "\"" : "");
	}
	crypto_hash_sha256(digest, (const uint8_t *) canonical, strlen(canonical));
	plinth_base64url_encode(digest, sizeof(digest), out);
	return true;
}

static PlinthJoseKey *
new_key(PlinthJoseAlg alg, size_t secret_len)
{
	PlinthJoseKey *key = calloc(1, sizeof(PlinthJoseKey));

	if (key == NULL)
		return NULL;
	key->alg = alg;
	key->can_sign = true;
	key->secret_len = secret_len;
	if (secret_len > 0)
		key->secret = malloc(secret_len);
	if (secret_len > 0 && key->secret == NULL)
	{
		free(key);
		return NULL;
	}
	return key;
}

void
plinth_jose_key_free(PlinthJoseKey *key)
{
	if (key == NULL)
		return;
	if (key->secret != NULL)
		sodium_memzero(key->secret, key->secret_len);
	free(key->secret);
	EVP_PKEY_free(key->evp);
	free(key);
}

PlinthJoseAlg
plinth_jose_key_alg(const PlinthJoseKey *key)
{
	return key->alg;
}

/* Takes over evp, which may be NULL. */
static PlinthJoseKey *
key_of_evp(PlinthJoseAlg alg, EVP_PKEY *evp, bool can_sign)
{
	PlinthJoseKey *key = NULL;

	if (evp != NULL && plinth_jose_evp_fits(alg, evp))
		key = new_key(alg, 0);
	if (key == NULL)
	{
		EVP_PKEY_free(evp);
		return NULL;
	}
	key->evp = evp;
	key->can_sign = can_sign;
	return key;
}

static PlinthJoseKey *
key_of_seed(const uint8_t seed[SEED_BYTES])
{
	PlinthJoseKey *key = new_key(PLINTH_JOSE_EDDSA, crypto_sign_ed25519_SECRETKEYBYTES);

	if (key != NULL)
		crypto_sign_ed25519_seed_keypair(key->public_key, key->secret, seed);
	return key;
}

static PlinthJoseKey *
key_of_secret(const uint8_t *data, size_t len)
{
	PlinthJoseKey *key;

	if (len < PLINTH_JOSE_MIN_SECRET || len > PLINTH_JOSE_MAX_PRIVATE)
		return NULL;
	key = new_key(PLINTH_JOSE_HS256, len);
	if (key != NULL)
		memcpy(key->secret, data, len);
	return key;
}

PlinthJoseKey *
plinth_jose_key_from_private(PlinthJoseAlg alg, const uint8_t *data, size_t len)
{
	if (len > PLINTH_JOSE_MAX_PRIVATE)
		return NULL;
	if (alg == PLINTH_JOSE_HS256)
		return key_of_secret(data, len);
	if (alg == PLINTH_JOSE_EDDSA)
		return len == SEED_BYTES ? key_of_seed(data) : NULL;
	return key_of_evp(alg, plinth_jose_evp_from_der(data, len), true);
}

PlinthJoseKey *
plinth_jose_key_generate(PlinthJoseAlg alg)
{
	uint8_t random[SEED_BYTES];
	PlinthJoseKey *key;

	if (alg == PLINTH_JOSE_ES256 || alg == PLINTH_JOSE_RS256)
		return key_of_evp(alg, plinth_jose_evp_generate(alg), true);
	randombytes_buf(random, sizeof(random));
	key = plinth_jose_key_from_private(alg, random, sizeof(random));
	sodium_memzero(random, sizeof(random));
	return key;
}

PlinthJoseKey *
plinth_jose_key_from_file(PlinthJoseAlg alg, const uint8_t *data, size_t len)
{
	uint8_t seed[SEED_BYTES];
	PlinthJoseKey *key = NULL;
	EVP_PKEY *evp;

	if (alg == PLINTH_JOSE_HS256)
		return key_of_secret(data, len);
	evp = plinth_jose_evp_from_pem(data, len);
	if (alg != PLINTH_JOSE_EDDSA)
		return key_of_evp(alg, evp, true);
	if (evp != NULL && plinth_jose_evp_seed(evp, seed))
		key = key_of_seed(seed);
	sodium_memzero(seed, sizeof(seed));
	EVP_PKEY_free(evp);
	return key;
}

PlinthJoseKey *
plinth_jose_key_from_jwk(const PlinthJwk *jwk)
{
	PlinthJoseAlg alg;
	PlinthJoseKey *key;
	uint8_t point[crypto_sign_ed25519_PUBLICKEYBYTES];

	if (!plinth_jose_jwk_alg(jwk, &alg))
		return NULL;
	if (alg != PLINTH_JOSE_EDDSA)
		return key_of_evp(alg, plinth_jose_evp_from_jwk(alg, jwk), false);
	/* A point of small order would verify signatures of nobody. */
	if (!decode_exactly(jwk->x, point, sizeof(point)) || !crypto_core_ed25519_is_valid_point(point))
		return NULL;
	key = new_key(alg, 0);
	if (key == NULL)
		return NULL;
	memcpy(key->public_key, point, sizeof(point));
	key->can_sign = false;
	return key;
}

size_t
plinth_jose_key_private(const PlinthJoseKey *key, uint8_t out[PLINTH_JOSE_MAX_PRIVATE])
{
	if (!key->can_sign)
		return 0;
	switch (key->alg)
	{
		case PLINTH_JOSE_HS256:
			memcpy(out, key->secret, key->secret_len);
			return key->secret_len;
		case PLINTH_JOSE_EDDSA:
			crypto_sign_ed25519_sk_to_seed(out, key->secret);
			return SEED_BYTES;
		case PLINTH_JOSE_ES256:
		case PLINTH_JOSE_RS256:
			break;
	}
	return plinth_jose_evp_private(key->evp, out);
}

bool
plinth_jose_key_public(const PlinthJoseKey *key, PlinthJwk *jwk)
{
	memset(jwk, 0, sizeof(*jwk));
	switch (key->alg)
	{
		case PLINTH_JOSE_HS256:
			return false;
		case PLINTH_JOSE_EDDSA:
			strcpy(jwk->kty, "OKP");
			strcpy(jwk->crv, "Ed25519");
			plinth_base64url_encode(key->public_key, sizeof(key->public_key), jwk->x);
			return true;
		case PLINTH_JOSE_ES256:
		case PLINTH_JOSE_RS256:
			break;
	}
	return plinth_jose_evp_public(key->alg, key->evp, jwk);
}

static void
hmac(const PlinthJoseKey *key, const void *data, size_t len, uint8_t out[HMAC_BYTES])
{
	crypto_auth_hmacsha256_state state;

	crypto_auth_hmacsha256_init(&state, key->secret, key->secret_len);
	crypto_auth_hmacsha256_update(&state, data, len);
	crypto_auth_hmacsha256_final(&state, out);
	sodium_memzero(&state, sizeof(state));
}

size_t
plinth_jose_sign(const PlinthJoseKey *key, const void *data, size_t len,
				 uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE])
{
	if (!key->can_sign)
		return 0;
	switch (key->alg)
	{
		case PLINTH_JOSE_HS256:
			hmac(key, data, len, signature);
			return HMAC_BYTES;
		case PLINTH_JOSE_EDDSA:
			crypto_sign_ed25519_detached(signature, NULL, data, len, key->secret);
			return ED25519_BYTES;
		case PLINTH_JOSE_ES256:
		case PLINTH_JOSE_RS256:
			break;
	}
	return plinth_jose_evp_sign(key->alg, key->evp, data, len, signature);
}

bool
plinth_jose_verify(const PlinthJoseKey *key, const void *data, size_t len, const uint8_t *signature,
				   size_t signature_len)
{
	uint8_t expected[HMAC_BYTES];

	switch (key->alg)
	{
		case PLINTH_JOSE_HS256:
			if (signature_len != HMAC_BYTES)
				return false;
			hmac(key, data, len, expected);
			return sodium_memcmp(expected, signature, HMAC_BYTES) == 0;
		case PLINTH_JOSE_EDDSA:
			return signature_len == ED25519_BYTES &&
				   crypto_sign_ed25519_verify_detached(signature, data, len, key->public_key) == 0;
		case PLINTH_JOSE_ES256:
		case PLINTH_JOSE_RS256:
			break;
	}
	return plinth_jose_evp_verify(key->alg, key->evp, data, len, signature, signature_len);
}
