/*
 * jose_evp.c
 *		ES256 and RS256, and keys in PKCS #8, by OpenSSL's libcrypto.
 *
 * JWS has an ECDSA signature as two numbers of 32 bytes each (RFC 7518 section
 * 3.4) where OpenSSL has DER, so both ways are taken here.  What OpenSSL leaves
 * in its queue of errors is taken out again: PostgreSQL's own TLS reads it.
 */
#include "session/jose_int.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

#define RSA_BITS 2048
#define P256 "prime256v1"
#define P256_BYTES 32
#define POINT_BYTES (1 + 2 * P256_BYTES)

static bool
is_p256(EVP_PKEY *evp)
{
	char group[32];

	return EVP_PKEY_is_a(evp, "EC") &&
		   EVP_PKEY_get_utf8_string_param(evp, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group),
										  NULL) == 1 &&
		   strcmp(group, P256) == 0;
}

/* An exponent of 1 would let everything pass, an even one is none. */
static bool
is_rsa(EVP_PKEY *evp)
{
	BIGNUM *e = NULL;
	bool good;

	if (!EVP_PKEY_is_a(evp, "RSA") || EVP_PKEY_get_bits(evp) < PLINTH_JOSE_MIN_RSA_BITS ||
		EVP_PKEY_get_bits(evp) > PLINTH_JOSE_MAX_RSA_BITS ||
		EVP_PKEY_get_bn_param(evp, OSSL_PKEY_PARAM_RSA_E, &e) != 1)
		return false;
	good = BN_is_odd(e) && !BN_is_one(e) && BN_num_bits(e) <= 64;
	BN_free(e);
	return good;
}

bool
plinth_jose_evp_fits(PlinthJoseAlg alg, EVP_PKEY *evp)
{
	EVP_PKEY_CTX *context = NULL;
	bool good = alg == PLINTH_JOSE_ES256 ? is_p256(evp) : alg == PLINTH_JOSE_RS256 && is_rsa(evp);

	if (good)
	{
		context = EVP_PKEY_CTX_new_from_pkey(NULL, evp, NULL);
		good = context != NULL && EVP_PKEY_public_check_quick(context) == 1;
	}
	EVP_PKEY_CTX_free(context);
	ERR_clear_error();
	return good;
}

EVP_PKEY *
plinth_jose_evp_generate(PlinthJoseAlg alg)
{
	EVP_PKEY *evp = alg == PLINTH_JOSE_ES256 ? EVP_EC_gen(P256) : EVP_RSA_gen(RSA_BITS);

	ERR_clear_error();
	return evp;
}

EVP_PKEY *
plinth_jose_evp_from_der(const uint8_t *data, size_t len)
{
	const uint8_t *end = data;
	PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &end, (long) len);
	EVP_PKEY *evp = info != NULL && end == data + len ? EVP_PKCS82PKEY(info) : NULL;

	PKCS8_PRIV_KEY_INFO_free(info);
	ERR_clear_error();
	return evp;
}

/* A file that asks for a passphrase has none here. */
static int
no_passphrase(char *buffer, int size, int writing, void *arg)
{
	(void) buffer;
	(void) size;
	(void) writing;
	(void) arg;
	return -1;
}

EVP_PKEY *
plinth_jose_evp_from_pem(const uint8_t *data, size_t len)
{
	BIO *bio = BIO_new_mem_buf(data, (int) len);
	EVP_PKEY *evp = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

	BIO_free(bio);
	ERR_clear_error();
	return evp;
}

static EVP_PKEY *
evp_from_params(const char *type, OSSL_PARAM_BLD *builder)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *evp = NULL;

	if (params == NULL || context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
		EVP_PKEY_fromdata(context, &evp, EVP_PKEY_PUBLIC_KEY, params) != 1)
		evp = NULL;
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_free(params);
	return evp;
}

/* A positive number without leading zeros; NULL otherwise. */
static BIGNUM *
decode_number(const char *text, size_t max)
{
	uint8_t bytes[PLINTH_JOSE_MAX_RSA_BITS / 8];
	long len;

	if (strlen(text) == 0 || strlen(text) > PLINTH_BASE64URL_LENGTH(max))
		return NULL;
	len = plinth_base64url_decode(text, strlen(text), bytes);
	if (len <= 0 || bytes[0] == 0)
		return NULL;
	return BN_bin2bn(bytes, (int) len, NULL);
}

static EVP_PKEY *
rsa_from_jwk(const PlinthJwk *jwk, OSSL_PARAM_BLD *builder)
{
	BIGNUM *n = decode_number(jwk->n, PLINTH_JOSE_MAX_RSA_BITS / 8);
	BIGNUM *e = decode_number(jwk->e, 8);
	EVP_PKEY *evp = NULL;

	if (n != NULL && e != NULL && OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) == 1)
		evp = evp_from_params("RSA", builder);
	BN_free(n);
	BN_free(e);
	return evp;
}

static EVP_PKEY *
ec_from_jwk(const PlinthJwk *jwk, OSSL_PARAM_BLD *builder)
{
	uint8_t point[POINT_BYTES];
	size_t len = PLINTH_BASE64URL_LENGTH(P256_BYTES);

	point[0] = POINT_CONVERSION_UNCOMPRESSED;
	if (strlen(jwk->x) != len || strlen(jwk->y) != len ||
		plinth_base64url_decode(jwk->x, len, point + 1) != P256_BYTES ||
		plinth_base64url_decode(jwk->y, len, point + 1 + P256_BYTES) != P256_BYTES)
		return NULL;
	if (OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, P256, 0) != 1 ||
		OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) !=
			1)
		return NULL;
	return evp_from_params("EC", builder);
}

EVP_PKEY *
plinth_jose_evp_from_jwk(PlinthJoseAlg alg, const PlinthJwk *jwk)
{
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	EVP_PKEY *evp = NULL;

	if (builder != NULL)
		evp = alg == PLINTH_JOSE_RS256 ? rsa_from_jwk(jwk, builder) : ec_from_jwk(jwk, builder);
	OSSL_PARAM_BLD_free(builder);
	ERR_clear_error();
	return evp;
}

size_t
plinth_jose_evp_private(EVP_PKEY *evp, uint8_t out[PLINTH_JOSE_MAX_PRIVATE])
{
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(evp);
	uint8_t *der = NULL;
	int len = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : 0;

	PKCS8_PRIV_KEY_INFO_free(info);
	ERR_clear_error();
	if (len <= 0 || len > PLINTH_JOSE_MAX_PRIVATE)
		len = 0;
	if (len > 0)
		memcpy(out, der, (size_t) len);
	OPENSSL_clear_free(der, (size_t) len);
	return (size_t) len;
}

/* Encodes a number, in so many bytes or (0) as many as it needs. */
static bool
encode_number(EVP_PKEY *evp, const char *param, char *out, size_t width)
{
	uint8_t bytes[PLINTH_JOSE_MAX_RSA_BITS / 8];
	BIGNUM *number = NULL;
	size_t len = 0;

	if (EVP_PKEY_get_bn_param(evp, param, &number) == 1)
	{
		len = width > 0 ? width : (size_t) BN_num_bytes(number);
		if (len > sizeof(bytes) || BN_bn2binpad(number, bytes, (int) len) < 0)
			len = 0;
	}
	BN_free(number);
	if (len > 0)
		plinth_base64url_encode(bytes, len, out);
	return len > 0;
}

bool
plinth_jose_evp_public(PlinthJoseAlg alg, EVP_PKEY *evp, PlinthJwk *jwk)
{
	bool good;

	if (alg == PLINTH_JOSE_RS256)
	{
		strcpy(jwk->kty, "RSA");
		good = encode_number(evp, OSSL_PKEY_PARAM_RSA_N, jwk->n, 0) &&
			   encode_number(evp, OSSL_PKEY_PARAM_RSA_E, jwk->e, 0);
	}
	else
	{
		strcpy(jwk->kty, "EC");
		strcpy(jwk->crv, "P-256");
		good = encode_number(evp, OSSL_PKEY_PARAM_EC_PUB_X, jwk->x, P256_BYTES) &&
			   encode_number(evp, OSSL_PKEY_PARAM_EC_PUB_Y, jwk->y, P256_BYTES);
	}
	ERR_clear_error();
	return good;
}

/* Two numbers from DER. */
static bool
ecdsa_from_der(const uint8_t *der, size_t len, uint8_t out[2 * P256_BYTES])
{
	const uint8_t *end = der;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &end, (long) len);
	bool good = sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, P256_BYTES) > 0 &&
				BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + P256_BYTES, P256_BYTES) > 0;

	ECDSA_SIG_free(sig);
	return good;
}

/* DER, which OpenSSL allocates, from two numbers; its length, or 0. */
static size_t
ecdsa_to_der(const uint8_t *signature, uint8_t **der)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(signature, P256_BYTES, NULL);
	BIGNUM *s = BN_bin2bn(signature + P256_BYTES, P256_BYTES, NULL);
	int len = 0;

	*der = NULL;
	if (sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1)
		len = i2d_ECDSA_SIG(sig, der);
	else
	{
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(sig);
	return len > 0 ? (size_t) len : 0;
}

size_t
plinth_jose_evp_sign(PlinthJoseAlg alg, EVP_PKEY *evp, const void *data, size_t len,
					 uint8_t signature[PLINTH_JOSE_MAX_SIGNATURE])
{
	uint8_t made[PLINTH_JOSE_MAX_SIGNATURE];
	size_t made_len = sizeof(made);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool good = context != NULL &&
				EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, evp) == 1 &&
				EVP_DigestSign(context, made, &made_len, data, len) == 1;

	EVP_MD_CTX_free(context);
	if (good && alg == PLINTH_JOSE_ES256)
	{
		good = ecdsa_from_der(made, made_len, signature);
		made_len = 2 * P256_BYTES;
	}
	else if (good)
		memcpy(signature, made, made_len);
	ERR_clear_error();
	return good ? made_len : 0;
}

bool
plinth_jose_evp_verify(PlinthJoseAlg alg, EVP_PKEY *evp, const void *data, size_t len,
					   const uint8_t *signature, size_t signature_len)
{
	EVP_MD_CTX *context;
	uint8_t *der = NULL;
	bool good;

	if (alg == PLINTH_JOSE_ES256)
	{
		if (signature_len != 2 * P256_BYTES)
			return false;
		signature_len = ecdsa_to_der(signature, &der);
		signature = der;
	}
	else if (signature_len != (size_t) EVP_PKEY_get_size(evp))
		return false;

	context = EVP_MD_CTX_new();
	good = context != NULL && signature_len > 0 &&
		   EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, evp) == 1 &&
		   EVP_DigestVerify(context, signature, signature_len, data, len) == 1;
	EVP_MD_CTX_free(context);
	OPENSSL_free(der);
	ERR_clear_error();
	return good;
}

bool
plinth_jose_evp_seed(EVP_PKEY *evp, uint8_t seed[crypto_sign_ed25519_SEEDBYTES])
{
	size_t len = crypto_sign_ed25519_SEEDBYTES;
	bool good = EVP_PKEY_is_a(evp, "ED25519") &&
				EVP_PKEY_get_raw_private_key(evp, seed, &len) == 1 &&
				len == crypto_sign_ed25519_SEEDBYTES;

	ERR_clear_error();
	return good;
}
