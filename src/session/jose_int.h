/*
 * jose_int.h
 *		What jose.c and jose_evp.c share: keys, and those that OpenSSL holds.
 */
#ifndef PLINTH_SESSION_JOSE_INT_H
#define PLINTH_SESSION_JOSE_INT_H

#include <openssl/evp.h>
#include <sodium.h>

#include "session/jose.h"

struct PlinthJoseKey
{
	PlinthJoseAlg alg;
	bool can_sign;
	EVP_PKEY *evp;   /* ES256 and RS256 */
	uint8_t *secret; /* HS256, and EdDSA's private key as libsodium has it; or NULL */
	size_t secret_len;
	uint8_t public_key[crypto_sign_ed25519_PUBLICKEYBYTES]; /* EdDSA */
};

/* Is this key good for ES256 or RS256: the curve, the size, the public part? */
extern bool plinth_jose_evp_fits(PlinthJoseAlg alg, EVP_PKEY *evp);
extern EVP_PKEY *plinth_jose_evp_generate(PlinthJoseAlg alg);
extern EVP_PKEY *plinth_jose_evp_from_der(const uint8_t *data, size_t len);
extern EVP_PKEY *plinth_jose_evp_from_pem(const uint8_t *data, size_t len);
extern EVP_PKEY *plinth_jose_evp_from_jwk(PlinthJoseAlg alg, const PlinthJwk *jwk);
extern size_t plinth_jose_evp_private(EVP_PKEY *evp, uint8_t out[PLINTH_JOSE_MAX_PRIVATE]);
extern bool plinth_jose_evp_public(PlinthJoseAlg alg, EVP_PKEY *evp, PlinthJwk *jwk);
extern size_t plinth_jose_evp_sign(PlinthJoseAlg alg, EVP_PKEY *evp, const void *data, size_t len,
								   uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE]);
extern bool plinth_jose_evp_verify(PlinthJoseAlg alg, EVP_PKEY *evp, const void *data, size_t len,
								   const uint8_t *signature, size_t signature_len);

/* The seed of an Ed25519 key; false when it is another. */
extern bool plinth_jose_evp_seed(EVP_PKEY *evp, uint8_t seed[crypto_sign_ed25519_SEEDBYTES]);

#endif /* PLINTH_SESSION_JOSE_INT_H */
