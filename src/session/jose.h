/*
 * jose.h
 *		Signatures of JWS and keys of JWK, in plain C over libsodium and
 *		OpenSSL's libcrypto.
 *
 * Private to room session; nothing here needs PostgreSQL.  JSON is the
 * caller's: what comes here are the parts of a token and the members of a key.
 */
#ifndef PLINTH_SESSION_JOSE_H
#define PLINTH_SESSION_JOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

/* RFC 7518 section 3.1, RFC 8037 section 3.1.  There is no "none". */
typedef enum PlinthJoseAlg
{
	PLINTH_JOSE_HS256,
	PLINTH_JOSE_EDDSA,
	PLINTH_JOSE_ES256,
	PLINTH_JOSE_RS256
} PlinthJoseAlg;

/* Longest token, key file, signature (RSA with 4096 bits) and private key. */
#define PLINTH_JOSE_MAX_TOKEN 8192
#define PLINTH_JOSE_MAX_RSA_BITS 4096
#define PLINTH_JOSE_MIN_RSA_BITS 2048
#define PLINTH_JOSE_MAX_SIGNATURE (PLINTH_JOSE_MAX_RSA_BITS / 8)
#define PLINTH_JOSE_MAX_PRIVATE 4096
#define PLINTH_JOSE_MIN_SECRET 32

/* False for a name that is none of the four, in exactly this spelling. */
extern bool plinth_jose_alg_parse(const char *name, PlinthJoseAlg *alg);
extern const char *plinth_jose_alg_name(PlinthJoseAlg alg);

/* The parts of a compact serialization, still encoded. */
typedef struct PlinthJoseParts
{
	const char *header;
	size_t header_len;
	const char *payload;
	size_t payload_len;
	const char *signature;
	size_t signature_len;
	size_t signed_len; /* header, dot and payload, from the token's start */
} PlinthJoseParts;

/* False unless the token has three parts, none empty, and is no longer than allowed. */
extern bool plinth_jose_split(const char *token, size_t len, PlinthJoseParts *parts);

/*
 * The public members of a JWK, as they stand in it; "" for one that is not
 * there.  kty and crv decide which of the others count.
 */
typedef struct PlinthJwk
{
	char kty[8];
	char crv[16];
	char n[PLINTH_BASE64URL_LENGTH(PLINTH_JOSE_MAX_RSA_BITS / 8) + 1];
	char e[16];
	char x[PLINTH_BASE64URL_LENGTH(32) + 1];
	char y[PLINTH_BASE64URL_LENGTH(32) + 1];
} PlinthJwk;

/* The algorithm that a public key is for; false when it is for none of ours. */
extern bool plinth_jose_jwk_alg(const PlinthJwk *jwk, PlinthJoseAlg *alg);

/* The JWK thumbprint (RFC 7638, SHA-256); false for a key of no kind known here. */
#define PLINTH_JOSE_THUMBPRINT_SIZE (PLINTH_BASE64URL_LENGTH(32) + 1)
extern bool plinth_jose_thumbprint(const PlinthJwk *jwk, char out[PLINTH_JOSE_THUMBPRINT_SIZE]);

/*
 * A key, which is for one algorithm.  Free it with plinth_jose_key_free, which
 * wipes what is secret.  All of these return NULL when there is no such key,
 * or no memory.
 */
typedef struct PlinthJoseKey PlinthJoseKey;
extern PlinthJoseKey *plinth_jose_key_generate(PlinthJoseAlg alg);

/* From what plinth_jose_key_private gave: secret, seed, or PKCS #8 in DER. */
extern PlinthJoseKey *plinth_jose_key_from_private(PlinthJoseAlg alg, const uint8_t *data,
												   size_t len);

/* From a file: the secret as it is for HS256, else PKCS #8 in PEM. */
extern PlinthJoseKey *plinth_jose_key_from_file(PlinthJoseAlg alg, const uint8_t *data, size_t len);

/* From a JWK, for verifying only. */
extern PlinthJoseKey *plinth_jose_key_from_jwk(const PlinthJwk *jwk);
extern PlinthJoseAlg plinth_jose_key_alg(const PlinthJoseKey *key);
extern void plinth_jose_key_free(PlinthJoseKey *key);

/* The private part; its length, or 0 when there is none. */
extern size_t plinth_jose_key_private(const PlinthJoseKey *key,
									  uint8_t out[PLINTH_JOSE_MAX_PRIVATE]);

/* The public members; false for HS256, which has none. */
extern bool plinth_jose_key_public(const PlinthJoseKey *key, PlinthJwk *jwk);

/* Signs; the length of the signature, or 0 when it could not be made. */
extern size_t plinth_jose_sign(const PlinthJoseKey *key, const void *data, size_t len,
							   uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE]);

/* Whether the signature, of exactly this length, is the key's. */
extern bool plinth_jose_verify(const PlinthJoseKey *key, const void *data, size_t len,
							   const uint8_t *signature, size_t signature_len);

#endif /* PLINTH_SESSION_JOSE_H */
